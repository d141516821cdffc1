"""The shape of everything that says which models may live together and who goes first."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from llmswap.config.kinds import AtLeast0, AtLeast1, Flag, Hold, Section, Text, Texts, Whole


class GroupSection(Section):
    """One group of models."""

    members: Texts = Field(default=[], description="Ids of the models in the group; a model is in at most one.")
    swap: Flag = Field(default=True, description="Only one member runs at a time.")
    exclusive: Flag = Field(default=True, description="Loading a member stops the models of other groups.")
    persistent: Flag = Field(default=False, description="Members are never stopped for another group.")


class MatrixSection(Section):
    """The set expressions that say which models may run together."""

    vars: dict[str, Text] = Field(default={}, description="Short name -> model id, for use in sets.")
    evict_costs: dict[str, AtLeast1] = Field(
        default={}, alias="evict_costs", description="Var or model id -> what evicting it costs; 1 where absent."
    )
    sets: dict[str, Text] = Field(default={}, description="Set name -> expression of models that may run together.")


class RouterSettingsSection(Section):
    """`routing.router.settings`."""

    groups: dict[str, GroupSection] = Field(default={}, description="Groups by name; used if `use` is group.")
    matrix: MatrixSection | None = Field(default=None, description="The matrix; used if `use` is matrix.")


class RouterSection(Section):
    """`routing.router`."""

    use: Literal["group", "matrix"] | None = Field(
        default=None, description="Which rule is in force: group (default) or matrix."
    )
    settings: RouterSettingsSection = Field(default=RouterSettingsSection(), description="The rules' own settings.")


class FifoSection(Section):
    """`routing.scheduler.settings.fifo`."""

    priority: dict[str, Whole] = Field(
        default={}, description="Model id or alias -> priority; higher goes first in the queue, 0 where absent."
    )


class FairSection(Section):
    """`routing.scheduler.settings.fair`."""

    priority: dict[str, Whole] = Field(
        default={}, description="Model id or alias -> priority; higher goes first until somebody is due."
    )
    max_wait: AtLeast0 = Field(default=120, description="Seconds after which a waiting request is due and goes first.")
    hold: Hold = Field(
        default="auto",
        validate_default=True,
        description="Seconds an idle model is kept while others wait for its place; auto learns them.",
    )
    queue_limit: AtLeast1 = Field(default=1000, description="Most requests waiting for one model.")


class SchedulerSettingsSection(Section):
    """`routing.scheduler.settings`."""

    fifo: FifoSection = Field(default=FifoSection(), description="Settings of the fifo scheduler.")
    fair: FairSection = Field(default=FairSection(), description="Settings of the fair scheduler.")


class SchedulerSection(Section):
    """`routing.scheduler`."""

    use: Literal["fifo", "fair"] = Field(
        default="fair", description="Which scheduler orders waiting requests: fair, or fifo (llama-swap's)."
    )
    settings: SchedulerSettingsSection = Field(default=SchedulerSettingsSection(), description="Settings by scheduler.")


class RoutingSection(Section):
    """`routing`."""

    router: RouterSection = Field(default=RouterSection(), description="Which models may run together.")
    scheduler: SchedulerSection = Field(default=SchedulerSection(), description="Which request goes first.")


def _not_a_list(value: Any) -> Any:  # noqa: ANN401  whatever stands in the file
    if isinstance(value, list):
        raise PydanticCustomError(
            "legacy", "profiles are no longer a list (legacy list syntax); write `name: {pins: …}`"
        )
    return value


class ProfileSection(Section):
    """One profile: what requested names stand for while it is active."""

    description: Text = Field(default="", description="Description of the profile.")
    pins: dict[str, Text | None] = Field(
        min_length=1, description="Requested name -> the name it stands for; null disables the name."
    )


Profiles = Annotated[dict[str, Annotated[ProfileSection, BeforeValidator(_not_a_list)]], BeforeValidator(_not_a_list)]
