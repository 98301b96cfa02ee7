"""`rmos api`: the HTTP API, for production."""


def api() -> None:
    """Serve the HTTP API at RMOS_API_HOST and RMOS_API_PORT until a signal stops it.

    Beyond loopback it needs RMOS_API_TOKENS_FILE: a line `name role sha256hex` for each token.
    """
    from pipeline.app import run_service
    from pipeline.app.http import run_api
    from pipeline.logs import configure_logging
    from pipeline.settings import read_settings

    settings = read_settings()
    configure_logging(settings)
    run_service(run_api(settings))
