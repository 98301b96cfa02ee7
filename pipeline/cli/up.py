"""`rmos up`: everything on this machine, to try it out or for a small shop."""

from pipeline.cli.views.terminal import is_watched


def up() -> None:
    """Run a local Apache Kafka, the store, its topics, all consumers and the HTTP API.

    The store is RMOS_DATA_DIR, the broker's port RMOS_BROKER_PORT, the API's RMOS_API_PORT.
    Ctrl-C stops all of it.
    """
    from pipeline.app import run_everything, run_service
    from pipeline.cli.broker import starting
    from pipeline.logs import configure_logging
    from pipeline.settings import read_settings

    settings = read_settings()
    if is_watched() and "log_level" not in settings.model_fields_set:
        # What the services say of each batch would push the addresses away.
        settings = settings.model_copy(update={"log_level": "warning"})
    configure_logging(settings)
    with starting() as tell:
        run_service(run_everything(settings, tell))
