"""Evaluations for people, on a terminal: tables and short sentences."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from stillwatch.evaluation.leaks import GIVEAWAY_AUC, LeakReport
from stillwatch.evaluation.measures import Agreement, Rate
from stillwatch.evaluation.metrics import Evaluation, Planted, Population, Reported
from stillwatch.evaluation.timeliness import LARGE_ACCOUNTS, Estimate, FlaggedHonest, Pool, Timeliness
from stillwatch.evaluation.trees import SURE_PRECISION, Point

NONE = "–"
LEAKS_SHOWN = 12
REPORTED_SHOWN = 30


def show(evaluation: Evaluation | None, leaks: LeakReport | None, console: Console) -> None:
    """Print either report or both; side by side where both are given."""
    if evaluation is not None:
        console.print(evaluation_view(evaluation))
    if leaks is not None:
        console.print(leaks_view(leaks, evaluation))


def evaluation_view(report: Evaluation) -> RenderableType:
    """Tables and sentences about a scan's evaluation."""
    return Group(*_evaluation_parts(report))


def leaks_view(report: LeakReport, ours: Evaluation | None = None) -> RenderableType:
    """Tables and sentences about what gives the campaigns away, beside what a scan of that log reached, if given."""
    return Group(*_leak_parts(report, ours))


def _evaluation_parts(report: Evaluation) -> Iterator[RenderableType]:
    yield _summary(report)
    if report.campaigns:
        yield _planted_table(report.campaigns)
    if report.reported:
        yield _reported_table(report.reported[:REPORTED_SHOWN])
        if (more := len(report.reported) - REPORTED_SHOWN) > 0:
            yield Text(f"… and {more} more reported campaigns")
    if report.populations:
        yield _population_table(report.populations)
    if report.timeliness:
        yield from _timeliness_parts(report.timeliness)
    yield from (Text(line) for line in _sentences(report))


def _summary(report: Evaluation) -> Table:
    table = Table(title="Scan against truth", show_header=False, title_justify="left")
    table.add_row("accounts", f"{report.accounts:,}")
    table.add_row("account precision", _rate(report.precision, nothing="nobody accused"))
    table.add_row("account recall", _rate(report.recall, nothing="nothing planted"))
    table.add_row("recall, campaigns counted alike", _share(report.mean_recall))
    table.add_row("campaigns found", f"{report.found.hits} of {report.found.total}")
    table.add_row("as groups", _agreement(report.agreement))
    table.add_row("headline (the worst of these)", f"[bold]{report.headline:.3f}[/]")
    return table


def _agreement(agreement: Agreement) -> str:
    parts = {"B-cubed F1": agreement.bcubed_f1, "pairwise F1": agreement.pairwise_f1, "purity": agreement.purity}
    return ", ".join(f"{name} {_number(value)}" for name, value in parts.items())


def _planted_table(campaigns: tuple[Planted, ...]) -> Table:
    headers = ("campaign", "shape", "accounts", "recall", "pieces", "largest", "purity", "capabilities off")
    table = _table("Planted campaigns", headers, text=2)
    for c in sorted(campaigns, key=lambda c: -c.recall.total):
        table.add_row(
            escape(c.campaign_id), escape(c.shape), f"{c.recall.total:,}", _rate(c.recall), str(len(c.pieces)),
            _share(c.largest_piece.value), _number(c.purity.value), _number(c.capabilities_off),
        )  # fmt: skip
    return table


def _reported_table(reported: tuple[Reported, ...]) -> Table:
    table = _table("Reported campaigns", ("campaign", "mostly", "accounts", "purity", "honest accounts"), text=2)
    for r in sorted(reported, key=lambda r: (not r.is_false, -r.accounts)):
        honest = ", ".join(f"{n} {name}" for name, n in r.honest.items())
        mostly = escape(r.dominated_by or "") or ("[red]false[/]" if r.is_false else NONE)
        table.add_row(escape(r.campaign_id), mostly, f"{r.accounts:,}", _rate(r.purity), escape(honest) or NONE)
    return table


def _population_table(populations: tuple[Population, ...]) -> Table:
    table = _table("Honest populations", ("population", "accounts", "accused", "rate", "highest risk"), text=1)
    for p in populations:
        table.add_row(
            escape(p.name), f"{p.accused.total:,}", f"[red]{p.accused.hits}[/]" if p.accused.hits else "0",
            _rate(p.accused, digits=4), _number(p.highest_risk),
        )  # fmt: skip
    return table


def _timeliness_parts(report: Timeliness) -> Iterator[RenderableType]:
    if report.campaigns:
        yield _timeliness_table(report)
    yield from (Text(line) for line in _timeliness_sentences(report))


def _timeliness_table(report: Timeliness) -> Table:
    headers = ["shape", "accounts", "named", "before flagged", "before named", "hours to named"]
    headers += ["new head: median / 90 %"] if report.pooled.heads else []
    table = _table("How early the replay told: shares of the harvest", tuple(headers), text=1)
    for pool in report.shapes:
        table.add_row(escape(pool.name), *_pool(pool))
    table.add_section()
    table.add_row("[bold]all[/]", *_pool(report.pooled))
    if report.large.named.total not in (0, report.pooled.named.total):
        table.add_row(f"{LARGE_ACCOUNTS} accounts or more", *_pool(report.large))
    return table


def _pool(pool: Pool) -> Iterator[str]:
    yield f"{pool.accounts:,}"
    yield f"{pool.named.hits} of {pool.named.total}"
    yield _estimate(pool.served)
    yield _estimate(pool.before_named_median)
    yield NONE if pool.hours_to_named_median is None else f"{pool.hours_to_named_median:,.1f}"
    if heads := pool.heads:
        most = heads.exchanges_90
        yield NONE if most is None else f"{heads.exchanges_median:,.0f} / {most:,.0f}"


def _timeliness_sentences(report: Timeliness) -> Iterator[str]:
    if report.campaigns:
        yield (
            "Before flagged: of each account, all campaigns together. Before named, and hours: median over campaigns. "
            "New head: exchanges of any kind that a replacement head made before it was flagged."
        )
        flagged, cleared = sum(c.flagged.hits for c in report.campaigns), sum(c.cleared for c in report.campaigns)
        yield f"Planted accounts ever flagged: {flagged:,}; {cleared:,} of them were wrongly cleared."
    if heads := report.pooled.heads:
        yield f"New heads: {heads.never_flagged.total:,}; {heads.never_flagged.hits:,} were never flagged."
        if heads.known_median is not None:
            yield (
                f"Of the {heads.known:,} that began once their campaign was named, half made at most "
                f"{heads.known_median:,.0f} exchanges before they were flagged."
            )
    yield _honest_sentence(report.honest, report.populations)


def _honest_sentence(honest: FlaggedHonest, populations: tuple[FlaggedHonest, ...]) -> str:
    told = f"Honest accounts ever flagged: {honest.ever.hits:,} of {honest.ever.total:,}"
    if not honest.ever.hits:
        return f"{told}."
    kinds = ", ".join(f"{p.ever.hits:,} {p.population}" for p in populations)
    after = "" if honest.hours_until_cleared is None else f" (half of them within {honest.hours_until_cleared:,.1f} h)"
    return f"{told} ({kinds}); {honest.at_the_end:,} still are at the end, {honest.cleared:,} were cleared{after}."


def _sentences(report: Evaluation) -> Iterator[str]:
    cost, odd = report.cost, report.unmatched
    given = "unknown" if cost.exchanges_given_away is None else f"{cost.exchanges_given_away:,}"
    yield (
        f"Errors: {cost.wrongly_accused:,} wrongly accused at {cost.prices.wrongly_accused:g} each, {given} "
        f"distillation queries of missed accounts given away at {cost.prices.exchange_given_away:g} each: "
        f"{cost.total:,.0f} together."
    )
    if report.risk.auc is not None:
        yield f"Risk: AUC {report.risk.auc:.3f}, Brier score {report.risk.brier:.4f}."
    if odd.not_in_result:
        yield (
            f"{odd.not_in_result:,} accounts of the truth are not in the result and count as not accused; "
            f"{odd.planted_not_in_result:,} of them are planted."
        )
    if odd.not_in_truth:
        yield (
            f"{odd.not_in_truth:,} accounts of the result are not in the truth and count nowhere; "
            f"{odd.accused_not_in_truth:,} of them are accused."
        )
    if odd.repeated_rows:
        yield f"{odd.repeated_rows:,} rows repeat an account and were left out."
    if odd.campaigns_without_accounts:
        yield f"Listed in campaigns.json, but no account carries it: {', '.join(odd.campaigns_without_accounts)}."
    if odd.campaigns_not_listed:
        yield f"Carried by accounts, but not listed in campaigns.json: {', '.join(odd.campaigns_not_listed)}."


def _leak_parts(report: LeakReport, ours: Evaluation | None) -> Iterator[RenderableType]:
    yield Text(
        f"{report.accounts:,} accounts, {report.planted:,} of them in {report.campaigns} planted campaigns; "
        f"{len(report.leaks)} columns tried."
    )
    if report.leaks:
        yield _leak_table(report)
        yield Text(_verdict(report))
    if report.trees or ours:
        yield _beside_table(report, ours)
    if report.trees and report.trees.leans_on:
        leaning = ", ".join(f"{one.column} ({one.auc_lost:.3f})" for one in report.trees.leans_on[:5])
        yield Text(f"The trees lean most on (AUC lost without): {leaning}.")
    yield from (Text(note) for note in report.notes)


def _leak_table(report: LeakReport) -> Table:
    headers = ("column", "family", "in campaigns", "AUC alone", "95 %", "campaigns alike")
    table = _table("What separates campaigns from honest accounts alone", headers, text=3)
    for leak in report.leaks[: max(LEAKS_SHOWN, len(report.giveaways))]:
        colour = "red" if leak.is_giveaway else "default"
        table.add_row(
            escape(leak.column), leak.family, "more" if leak.more_in_campaigns else "less",
            f"[{colour}]{leak.auc:.3f}[/]",
            f"{leak.low:.3f}–{leak.high:.3f}", f"{leak.campaign_mean:.3f}",
        )  # fmt: skip
    return table


def _verdict(report: LeakReport) -> str:
    if names := [leak.column for leak in report.giveaways]:
        return f"Give the campaigns away alone (AUC above {GIVEAWAY_AUC}): {', '.join(names)}."
    quiet = f"No column separates alone (AUC above {GIVEAWAY_AUC}); the strongest is {report.leaks[0].column}."
    by_campaign = [leak.column for leak in report.leaks if leak.is_giveaway_by_campaign]
    return quiet + (f" With campaigns counted alike it would be {', '.join(by_campaign)}." if by_campaign else "")


def _beside_table(report: LeakReport, ours: Evaluation | None) -> Table:
    table = _table("Beside one another, by account", ("who", "precision", "recall", "AUC"), text=1)
    if ours:
        auc = _number(ours.risk.auc)
        table.add_row("this scan", _rate(ours.precision, nothing="nobody accused"), _rate(ours.recall), auc)
    if trees := report.trees:
        auc = _number(trees.auc)
        table.add_row("trees on columns, best F1", *_point(trees.best_f1), auc)
        table.add_row(f"trees on columns, precision {SURE_PRECISION}", *_point(trees.sure), auc)
    return table


def _point(point: Point | None) -> tuple[str, str]:
    return (_rate(point.precision), _rate(point.recall)) if point else ("not reached", NONE)


def _table(title: str, headers: tuple[str, ...], *, text: int) -> Table:
    """A table whose first ``text`` columns are words; the others are numbers."""
    table = Table(title=title, title_justify="left")
    for place, header in enumerate(headers):
        table.add_column(header, justify="left" if place < text else "right", overflow="fold")
    return table


def _rate(rate: Rate, *, digits: int = 3, nothing: str = NONE) -> str:
    if rate.value is None:
        return nothing
    return f"{rate.value:.{digits}f} ({rate.low:.{digits}f}–{rate.high:.{digits}f})"


def _estimate(estimate: Estimate) -> str:
    spread = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:.0%}–{estimate.high:.0%})"
    return f"{_share(estimate.value)}{spread}"


def _share(value: float | None) -> str:
    return NONE if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
