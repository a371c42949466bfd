"""A training at full scale: in this process for a single local worker, else in workers of Ray Train."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from harness.data.batching import BatchPlan
from harness.errors import UserError
from harness.executors.base import WorkerRequest
from harness.system.device_slot import computing
from harness.training.full_scale.job import FullScaleJob
from harness.training.full_scale.messages import FullScaleMessage

if TYPE_CHECKING:
    import torch

    from harness.training.full_scale.process_group import ProcessGroup


def train_full_scale(
    job: FullScaleJob[Any], request: WorkerRequest, *, should_stop: Callable[[], bool]
) -> Iterator[FullScaleMessage]:
    """The messages of the training: from this process for a single local worker, else from the first Ray worker."""
    if request.workers == 1 and request.address is None:
        from harness.training.full_scale.process_group import ProcessGroup
        from harness.training.full_scale.worker import run_worker

        return run_worker(job, ProcessGroup(device_for(job)), should_stop=should_stop)
    from harness.executors.ray_train import train_with_ray

    return train_with_ray(job, request, should_stop=should_stop)


def device_for(job: FullScaleJob[Any]) -> "torch.device":
    """The GPU if there is one, else the CPU. Raises `UserError` for a precision that a CPU does not support."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda")
    if job.run.recipe.precision == "float16":
        raise UserError("`precision: float16` needs a GPU", remedy="Take `--precision bfloat16` or float32.")
    return torch.device("cpu")


@computing()
def open_task(job: FullScaleJob[Any], make: Callable[[FullScaleJob[Any], "ProcessGroup"], Any] | None = None) -> Any:
    """The task in this process, with as many threads as a worker has: the recipe's, or the result of `make`."""
    import torch

    from harness.training.full_scale.process_group import ProcessGroup
    from harness.training.tasks import TASKS

    torch.set_num_threads(job.threads)
    return (make or TASKS[job.run.recipe.task])(job, ProcessGroup(device_for(job)))


def measure_step(job: FullScaleJob[Any], batch_plan: BatchPlan, task: Any) -> float:
    """Seconds per image of a training step in this process."""
    from harness.training.full_scale.loop import TrainingContext
    from harness.training.full_scale.step_time import seconds_per_image

    return seconds_per_image(TrainingContext(job, task, batch_plan, task.team))
