"""The one call that changes aiokafka for this process; a publisher in other programs makes none."""

from pipeline.broker.aiokafka_fixes.closed_bootstraps import install_closed_bootstraps
from pipeline.broker.aiokafka_fixes.tolerant_records import install_tolerant_records
from pipeline.broker.aiokafka_fixes.unreadable_batches import install_partition_holds


def install(*, hold_partitions: bool = False) -> None:
    """Let every consumer of this process read what the broker accepted, and no client leak.

    Doing it again changes nothing. Consumers that run already are covered too.

    Args:
        hold_partitions: Whether a batch that cannot be read lets its partition rest, as a
            worker needs it; else it is an error, as a command needs it. A process that has
            once held partitions goes on to do so.
    """
    install_tolerant_records()
    install_closed_bootstraps()
    if hold_partitions:
        install_partition_holds()
