"""The plan of a study as a table: what would be trained, its cost, and the estimated time."""

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import DASH, format_duration, format_short_duration, format_value, plural, si
from harness.analysis.plan import PlannedConfiguration, StudyPlan
from harness.config.search_methods import WILCOXON_SEEDS
from harness.report.console import plain_table

MAX_PLAN_ROWS = 200


def plan_view(plan: StudyPlan) -> RenderableType:
    """The output of `harness run --dry-run`."""
    parts: list[RenderableType] = [_heading(plan), Text(), _table(plan)]
    if len(plan.rows) > MAX_PLAN_ROWS:
        parts.append(Text(f"and {len(plan.rows) - MAX_PLAN_ROWS} more"))
    parts += [Text(), *(Text(line) for line in _closing(plan))]
    return Group(*parts)


def _heading(plan: StudyPlan) -> Text:
    done = "trained" if plan.is_training else "measured, untrained"
    description = "a sample of what the sampler may choose" if plan.is_sample else f"what would be {done}"
    return Text(plan.study, style="bold").append(
        f"  {description}; nothing is trained or written now", style="not bold"
    )


def _table(plan: StudyPlan) -> RenderableType:
    table = plain_table([Text(name) for name in plan.axes], ("params", "MACs", "seeds", "in store", "time/run"))
    for planned in plan.rows[:MAX_PLAN_ROWS]:
        table.add_row(*_cells(planned, plan), style="dim" if len(planned.stored_seeds) == len(planned.seeds) else "")
    return table


def _cells(planned: PlannedConfiguration, plan: StudyPlan) -> list[str | Text]:
    params, cost = {**planned.derived, **planned.candidate.params}, planned.candidate.cost
    assert cost is not None, "a feasible candidate has a cost"
    return [
        *(Text(format_value(params[name])) if name in params else DASH for name in plan.axes),
        si(cost.params),
        si(cost.macs),
        str(len(planned.seeds)),
        str(len(planned.stored_seeds)),
        format_short_duration(planned.run_s),
    ]


def _configurations(plan: StudyPlan) -> str:
    """How many configurations are planned; with a sampler, the finished trials and at most how many new ones."""
    if plan.configurations is None:
        return plural(len(plan.rows), "configuration")
    if not plan.trials_done:
        return f"at most {plural(plan.configurations, 'configuration')}"
    finished = f"{plural(plan.trials_done, 'trial')} {'is' if plan.trials_done == 1 else 'are'} finished"
    return f"{finished}; at most {plural(plan.configurations, 'new configuration')}"


def _budget_lines(plan: StudyPlan) -> list[str]:
    """What is used of the study's budget, and what it allows."""
    if plan.budget is None:
        return []
    most = plan.budget_runs
    if most is None:
        allowed = "how many runs that allows is not known before one has been timed"
    elif most >= plan.runs_left + plan.runs_for_claims:
        allowed = "what is left allows all of these runs"
    else:
        allowed = (
            f"what is left allows about {plural(most, 'run')}, of at most {plan.runs_left + plan.runs_for_claims:,}"
        )
    screening = ", screening runs included" if plan.screening[0] else ""
    return [f"budget of the study: {plan.budget.text} are used; {allowed}{screening}"]


def _closing(plan: StudyPlan) -> list[str]:
    """The totals, and the basis of the estimates, as lines."""
    is_sample = plan.configurations is not None and plan.configurations > len(plan.rows)
    lines = [
        f"{_configurations(plan)}, {plural(plan.runs, 'run')}, "
        f"of which the store has {plan.runs_stored}{' of the sample' if is_sample else ''}; "
        f"{plan.runs_left} to {'train' if plan.is_training else 'measure, untrained'}"
    ]
    lines += [f"{plural(n, 'configuration')} left out by {key}" for key, n in plan.rejected.items()]
    workers = plural(plan.workers, "worker")
    if plan.runs_left:
        lines.append(f"estimated time: {format_duration(plan.total_s)} with {workers}; from {plan.basis}")
    lines += _budget_lines(plan)
    if plan.runs_to_time:
        verb = "are" if plan.runs_to_time > 1 else "is"
        timed = plural(plan.runs_to_time, "run")
        lines.append(
            f"{timed} {verb} of another environment: times would be measured again, `--reuse same` trains again"
        )
    if plan.repeats:
        lines.append(f"{plural(plan.repeats, 'trial')} can only repeat a configuration, for a further seed of it")
    screening, epochs = plan.screening
    if screening:
        lines.append(
            f"each configuration also has a screening run of at most {screening} of {plural(epochs, 'epoch')}, "
            "by which the pruner may leave it out; its seed enters no mean"
        )
    if plan.gives_up_seeds:
        lines.append(
            f"from {WILCOXON_SEEDS} seeds on, the pruner may give up the further seeds of a configuration that is "
            "worse than the best"
        )
    lines += plan.notes
    if plan.runs_for_claims:
        time = "" if plan.claims_s is None else f", {format_duration(plan.claims_s)}"
        lines.append(f"undecided claims may ask for up to {plural(plan.runs_for_claims, 'run')} more{time}")
    return lines
