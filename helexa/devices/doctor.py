"""`helexa doctor`: for every device whether it can be used, and what to do where it cannot."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from attrs import frozen

from helexa.config.schema import Config, Node, Places
from helexa.devices import compatibility, memory
from helexa.devices.build import TorchBuild, installed_torch
from helexa.devices.compatibility import Verdict, dotted
from helexa.devices.cuda import Card
from helexa.devices.discovery import cpu_device, setting, unknown_devices
from helexa.devices.host import ROOT
from helexa.devices.survey import Survey, survey

WORDS: tuple[tuple[str, str], ...] = (
    ("usable", "usable"),
    ("driver_too_old", "driver too old"),
    ("no_kernels", "no kernels for this card"),
    ("cpu_only_torch", "CPU-only torch"),
    ("no_torch", "torch not installed"),
    ("disabled", "switched off"),
    ("no_card", "no card"),
    ("warning", "note"),
)


@frozen
class Finding:
    """One line of the doctor's report; `advice` is empty where nothing needs doing."""

    subject: str
    verdict: Verdict | Literal["disabled", "no_card", "warning"]
    facts: str = ""
    advice: str = ""

    @property
    def is_bad(self) -> bool:
        """Something that is there cannot be used."""
        return self.verdict in ("driver_too_old", "no_kernels", "cpu_only_torch", "no_torch")


def examine(
    settings: Node | None = None,
    *,
    root: Path = ROOT,
    torch: Callable[[], TorchBuild | None] = installed_torch,
) -> list[Finding]:
    """Look at the machine.  Raises HelexaError where its memory cannot be told."""
    node = settings or Node()
    found, build = survey(root), torch()
    findings = [card_finding(card, found, build, node) for card in found.cards]
    if found.problem:
        findings.append(Finding("CUDA", "no_card", advice=found.problem))
    findings.append(cpu_finding(node, found, build, root))
    notes = [*unknown_devices(node, found.cards), *filter(None, [found.nvml_problem])]
    return findings + [Finding("note", "warning", advice=note) for note in notes]


def card_finding(card: Card, found: Survey, torch: TorchBuild | None, settings: Node) -> Finding:
    subject = f"GPU {card.index}: {card.name}"
    facts = card_facts(card, found)
    if not setting(settings, card.uuid).enabled:
        advice = "Switched off by [[node.devices]] enabled = false."
        return Finding(subject, "disabled", facts, advice)
    driver_cuda = found.cuda_version or (0, 0)
    verdict = compatibility.judge(torch, driver_cuda, card.capability)
    advice = compatibility.advice(verdict, torch, driver_cuda, card.capability)
    return Finding(subject, verdict, facts, advice)


def card_facts(card: Card, found: Survey) -> str:
    facts = [
        card.uuid,
        f"{card.vram_total_mb} MB",
        f"compute capability {dotted(card.capability)}",
        f"driver {found.driver_version or 'of unknown version'}",
    ]
    if found.cuda_version:
        facts.append(f"CUDA {dotted(found.cuda_version)}")
    return ", ".join(facts)


def cpu_finding(settings: Node, found: Survey, torch: TorchBuild | None, root: Path) -> Finding:
    """The CPU needs nothing but torch."""
    device = cpu_device(settings, found.host.cpu_name, root)
    subject = f"CPU: {device.name}"
    facts = f"{device.vram_total_mb} MB, {memory.measure(root).free_mb} MB free now"
    if torch is None:
        return Finding(subject, "no_torch", facts, compatibility.NO_TORCH)
    return Finding(subject, "usable", f"{facts}, torch {torch.version}")


def render(findings: list[Finding]) -> str:
    """The report, one paragraph a finding, and what it comes down to."""
    blocks = [block(finding) for finding in findings]
    return "\n".join([*blocks, "", summary(findings), ""])


def block(finding: Finding) -> str:
    lines = [f"{finding.subject}: {dict(WORDS)[finding.verdict]}"]
    if finding.facts:
        lines.append(f"    {finding.facts}")
    if finding.advice:
        lines.append(f"    -> {finding.advice}")
    return "\n".join(printable(line) for line in lines)


def summary(findings: list[Finding]) -> str:
    usable = [finding for finding in findings if finding.verdict == "usable"]
    cards = [finding for finding in usable if finding.subject.startswith("GPU")]
    if cards:
        return f"helexa uses {len(cards)} GPU{'s' if len(cards) > 1 else ''}."
    if usable:
        return "helexa uses the CPU: everything works there, only slower."
    return "helexa cannot serve models here; a gateway needs none of this."


def printable(text: str) -> str:
    """Names come from drivers and files: whatever could steer a terminal is shown as an escape."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def run(args: object, config: Config, places: Places) -> int:
    """`helexa doctor`: print the report; 1 if something that is there cannot be used, else 0."""
    findings = examine(config.node)
    print(render(findings), end="")
    return 1 if any(finding.is_bad for finding in findings) else 0
