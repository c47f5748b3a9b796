"""A plan as users hold it. Apart from :mod:`layerlens.api`, since whoever only inspects need not load what plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from layerlens import plan
from layerlens.report import display

if TYPE_CHECKING:
    from layerlens.dockerfile import Dockerfile, Stage
    from layerlens.forgotten import Forgotten
    from layerlens.slim import SlimImage
    from layerlens.stages import Written


@dataclass(slots=True)
class Plan(plan.Plan):
    """A plan that knows the image and the Dockerfile that it is for, and shows itself in Jupyter."""

    reference: str = ""
    """The image, as a FROM line would name it."""
    source: Dockerfile | None = field(default=None, repr=False)
    target: Stage | None = field(default=None, repr=False)
    forgotten: tuple[Forgotten, ...] = ()
    """What the target's stage must copy as well, or the program does not start."""

    def written(self, name: str = "Dockerfile") -> Written:
        """The Dockerfile, named ``name``, with what belongs beside it and what each of its copies brings."""
        from layerlens import forgotten, stages

        if self.forgotten and self.source is not None and self.target is not None:
            return stages.Written(forgotten.mended(self.source, self.target, self.forgotten))
        return stages.written(self, self.reference, source=self.source, target=self.target, name=name)

    def dockerfile(self, name: str = "Dockerfile") -> str:
        """The multi-stage Dockerfile that ships what the plan keeps."""
        return self.written(name).text

    def image(self) -> SlimImage:
        """The plan as an image, not yet written: :func:`layerlens.destinations.write_image` does that.

        Raises:
            UsageError: the base could not be opened, or does not fit.
        """
        from layerlens.slimming import slim_image

        return slim_image(self)

    def to_dict(self, made: Written | None = None) -> dict[str, Any]:
        """The plan as `recommend --format json` prints it; ``made`` is its Dockerfile where that is written."""
        made = made or self.written()
        return {
            **plan.Plan.to_dict(self),
            "forgotten": [{"line": one.line, "reason": display(one.told)} for one in self.forgotten],
            "dockerfile": display(made.text),
            "files": dict(made.files),
        }

    def _repr_html_(self) -> str:
        from layerlens.render.notebook import plan_html

        return plan_html(self.to_dict())
