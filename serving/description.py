"""The API's description (OpenAPI) where FastAPI's own would not be true."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

NOT_USED = ("HTTPValidationError", "ValidationError")  # a bad request is answered in OpenAI's form, with a 400


def install(app: FastAPI) -> None:
    """Serve a description that says what `app` does."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        schema = get_openapi(title=app.title, version=app.state.backend.release.model_id, routes=app.routes)
        for name in NOT_USED:
            schema["components"]["schemas"].pop(name, None)
        for operation in operations(schema):
            operation["responses"].pop("422", None)
            if app.state.backend.release.chat.access.visitors and "security" in operation:
                operation["security"].append({})  # a visitor needs none
        app.openapi_schema = schema
        return schema

    app.openapi = describe  # type: ignore[method-assign]


def operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Every operation of a description."""
    methods = ("get", "put", "post", "delete", "patch")
    return [path[method] for path in schema["paths"].values() for method in methods if method in path]
