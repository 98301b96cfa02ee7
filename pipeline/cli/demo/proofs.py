"""The chapters of the audits: one of a clean store, and one that names what was changed."""

from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from pipeline.audit.worker.asking import listening
from pipeline.broker.audit_publisher import publish_audit
from pipeline.broker.sending.requests import RequestSender
from pipeline.cli.demo.screen import Screen
from pipeline.errors import IntegrityError
from pipeline.settings import Settings
from schemas.audit_request import AuditRequest, AuditScope

_SHOWN_VERDICTS = ("integrity", "completeness", "late")


async def show_clean_audit(settings: Settings, screen: Screen) -> None:
    """Audit the store as it was written.

    Raises:
        IntegrityError: Something is not as it was written.
        BrokerError: No report came.
    """
    screen.chapter("An audit of everything: each byte, each leaf, each signature")
    faults = await _audit(settings, "demo-clean", screen)
    if faults:
        message = f"The audit found {faults[0]} in a store that nobody has changed."
        raise IntegrityError(message)


async def show_audit_of_change(settings: Settings, changed: Path, screen: Screen) -> None:
    """Audit the store after somebody has changed the file at `changed`, relative to it.

    Raises:
        IntegrityError: The audit does not name exactly that file.
        BrokerError: No report came.
    """
    screen.chapter("The audit names the file")
    faults = await _audit(settings, "demo-changed", screen)
    if set(faults) != {str(changed)}:
        message = f"The audit named {faults}, not {changed}."
        raise IntegrityError(message)


async def _audit(settings: Settings, audit_id: str, screen: Screen) -> list[str]:
    """Ask for an audit, tell of it, and return the paths of what it found."""
    screen.command(f"rmos audit run --audit-id {audit_id}")
    request = AuditRequest(audit_id=audit_id, scope=AuditScope(all=True), mode="full")
    sender = RequestSender(settings)
    faults = []
    try:
        async with listening(settings, audit_id) as listener:
            place = await publish_audit(sender, settings, request)
            async with aclosing(listener.news(place)) as told:
                async for news in told:
                    for finding in news.findings:
                        # The story's requests are dated as its document is, which is late.
                        if finding["severity"] == "error":
                            faults.append(finding["path"])
                            _tell_finding(finding, screen)
                    if news.report is not None:
                        _tell_report(news.report, screen)
    finally:
        await sender.stop()
    return faults


def _tell_finding(finding: Mapping[str, Any], screen: Screen) -> None:
    screen.line(f"  {finding['severity']} {finding['code']}: {finding['path']}", "bold red")
    screen.line(f"    expected {finding['expected']}")
    screen.line(f"    found    {finding['found']}")


def _tell_report(report: Mapping[str, Any], screen: Screen) -> None:
    counts = report["counts"]
    screen.note(
        f"{counts['files_read']} files read, {counts['leaves']} leaves in {counts['logs']} logs"
    )
    for name in _SHOWN_VERDICTS:
        told = report["verdicts"][name]
        screen.line(f"  {name.upper()}: {told['result']}: {told['reason']}")
    screen.note("late: the story's requests are dated 2025-12-18, and came today")
