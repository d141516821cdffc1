"""Rows of the reference's section 8 that have no golden test yet: row number -> why."""

NOT_YET: dict[int, str] = {
    41: "ui.activity.session_id is only checked; its normalisation comes with the activity page (issue 3)",
}
