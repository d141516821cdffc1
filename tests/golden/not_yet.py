"""Rows of the reference's section 8 that have no golden test yet: row number -> why."""

NOT_YET: dict[int, str] = {
    41: "ui.activity.session_id is only checked; its normalisation comes with the activity page (issue 3)",
    61: "activity rows are not kept yet: /api/metrics/* answers 404 until a later issue",
    63: "ComfyUI routes answer 404 until a later issue",
    67: "profiles are read and warned about, not applied, until a later issue",
    68: "selectors are read and warned about, not resolved, until a later issue",
    71: "/api/events answers 404 until a later issue",
    73: "peers are read and warned about, not served, until a later issue",
    74: "peers, two with the same bare model: as 73",
    108: "token metering comes with telemetry (issue 5)",
    109: "error messages of activity rows: as 61",
    110: "captures answer 404 until a later issue",
    111: "host and GPU numbers in /metrics come with telemetry (issue 5)",
    113: "activity paging: as 61",
}
