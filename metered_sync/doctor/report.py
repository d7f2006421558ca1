"""Hold what was found at each stage, and show it: as text, as JSON, in a notebook.

No secret is in here: every text is scrubbed before it becomes part of a report.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Finding", "Report", "Status", "Verdict", "verdict_of"]

Status = Literal["ok", "warning", "failed", "skipped"]
Verdict = Literal["ok", "warning", "failed"]

SIGNS: dict[str, str] = {"ok": "✔", "warning": "⚠", "failed": "✘", "skipped": "–"}  # noqa: RUF001
"""The sign of each status, in tables."""
_COLOURS = {"ok": "#2e7d32", "warning": "#b26a00", "failed": "#c62828", "skipped": "#757575"}
_EXIT_STATUS = {"ok": 0, "failed": 1, "warning": 3}


@dataclass(frozen=True)
class Finding:
    """The result of one stage."""

    stage: str
    """The stage's id."""
    status: Status
    ms: float
    """Milliseconds that the stage took."""
    what: str
    """What was found."""
    remedy: str
    """What to do about it; empty where there is nothing to do."""

    @property
    def sign(self) -> str:
        """The status as one character."""
        return SIGNS[self.status]

    @property
    def sentence(self) -> str:
        """Stage, thing and remedy in one sentence."""
        return f"{self.stage}: {self.what}" + (f": {self.remedy}" if self.remedy else "")

    def __str__(self) -> str:
        return f"{self.sign} {self.ms:7.0f} ms  {self.sentence}"


@dataclass(frozen=True)
class Report:
    """What an examination found, stage by stage; a notebook shows it as a table."""

    stages: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """``"failed"`` where a stage failed, ``"warning"`` where one warns, else ``"ok"``."""
        return verdict_of(self.stages)

    @property
    def exit_status(self) -> int:
        """The command's exit status: 0 fine, 1 failed, 3 warnings only."""
        return _EXIT_STATUS[self.verdict]

    def stage(self, name: str) -> Finding:
        """Return the finding of a stage; ``KeyError`` where it was not run."""
        for finding in self.stages:
            if finding.stage == name:
                return finding
        raise KeyError(f"the stage {name!r} is not in this report")

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values: ``verdict``, and ``stages``, a dict each."""
        stages = [asdict(finding) for finding in self.stages]
        for stage in stages:
            stage["ms"] = round(stage["ms"], 1)
        return {"verdict": self.verdict, "stages": stages}

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=2)

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.stages]
        if not self.stages or self.stages[-1].stage != "verdict":
            lines.append(f"verdict: {self.verdict}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="color:{_COLOURS[f.status]};text-align:center" title="{f.status}">'
            f"{f.sign}</td><td>{html.escape(f.stage)}</td>"
            f'<td style="text-align:right">{f.ms:.0f} ms</td>'
            f'<td style="text-align:left">{html.escape(f.what)}</td>'
            f'<td style="text-align:left">{html.escape(f.remedy)}</td></tr>'
            for f in self.stages
        )
        head = "".join(f"<th>{name}</th>" for name in ("", "stage", "", "what", "what to do"))
        return (
            f"<table><caption>verdict: {self.verdict}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


def verdict_of(findings: Iterable[Finding]) -> Verdict:
    """Return the verdict over some findings."""
    statuses = {finding.status for finding in findings}
    return "failed" if "failed" in statuses else "warning" if "warning" in statuses else "ok"
