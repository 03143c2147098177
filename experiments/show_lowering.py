"""What every pass of lowering makes of a program: the scheduled nest, then the program after each pass that changes it.

    python experiments/show_lowering.py gmm_512                                    # its default schedule, all passes
    python experiments/show_lowering.py c2d_56 --pass form_tiles                   # before and after one pass
    python experiments/show_lowering.py c2d_56 --records runs/c2d_56/records.jsonl # the best measured program

`ansor_py.lower.lower` has the passes in their order, and `lowering` gives the same programs to Python.
"""

from __future__ import annotations

from pathlib import Path

import click

from ansor_py.errors import AnsorError
from ansor_py.lower.lower import PASSES, lowering
from ansor_py.measure.records import best_records, read_records
from ansor_py.schedule.dag import ComputeDAG
from ansor_py.schedule.state import State
from ansor_py.schedule.steps import Step
from ansor_py.search.sampling.default_schedule import default_steps
from ansor_py.target import Target
from machine import target_option
from workloads import WORKLOADS, workload

NAMES = [transform.__name__ for transform in PASSES]


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.argument("name", type=click.Choice(sorted(WORKLOADS)), metavar="WORKLOAD")
@click.option("--pass", "wanted", type=click.Choice(NAMES), help="The program before and after this pass only.")
@click.option("--records", type=click.Path(exists=True, path_type=Path), help="Take the best program of these records.")
@click.option("--threads", default=2, show_default=True, type=click.IntRange(1))
@target_option(executes=False)
def main(name: str, wanted: str | None, records: Path | None, threads: int, target: Target) -> None:
    """Print the programs."""
    dag = workload(name).partition().subgraphs[0].dag
    try:
        steps = default_steps(dag, target, threads) if records is None else _best_steps(dag, records)
        programs = [(title, str(program)) for title, program in lowering(State.initial(dag).replay(steps), target)]
    except AnsorError as error:
        raise click.ClickException(str(error)) from error
    for (_, before), (title, program) in zip([("", ""), *programs], programs, strict=False):
        if wanted is None or title == wanted:
            if wanted is not None:
                click.echo(f"# before {title}\n{before}\n")
            click.echo(f"# {title}: no change\n" if program == before else f"# {title}\n{program}\n")


def _best_steps(dag: ComputeDAG, records: Path) -> tuple[Step, ...]:
    found = best_records(read_records(records)[0]).get(dag.workload_key)
    if found is None:
        raise click.UsageError(f"{records} has no measured program of this workload (workload key {dag.workload_key})")
    return found.concrete_steps(dag)


if __name__ == "__main__":
    main()
