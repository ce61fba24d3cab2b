"""OpenAI's error bodies: one exception for everything that a caller is told, and the handlers that render it."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger("colloquy")

TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


class ApiError(Exception):
    """Ends a request with `status` and OpenAI's error body."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        forget: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s
        self.forget = forget  # a cookie that is of no use any more

    @property
    def kind(self) -> str:
        """The type in OpenAI's words."""
        return TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")

    def body(self) -> dict[str, Any]:
        """The body that the official clients parse."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s is not None else None
        response = JSONResponse(self.body(), self.status, headers)
        if self.forget:
            response.delete_cookie(self.forget)
        return response


def from_validation(error: RequestValidationError) -> ApiError:
    """The first problem of a request body, with the path of the value; the value itself is not echoed."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"] if part not in ("body", "query", "path")]
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = f"unknown field {path[-1]!r}"
    param = ".".join(path) or None
    return ApiError(400, f"{param}: {message}" if param and param not in message else message, param)


def install(app: FastAPI) -> None:
    """Render every failure of `app` as an OpenAI error body."""

    @app.exception_handler(ApiError)
    async def api_error(request: Request, error: ApiError) -> JSONResponse:
        request.state.error_type = error.code or error.kind
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        request.state.error_type = "invalid_request_error"
        return from_validation(error).response()

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> JSONResponse:
        response = ApiError(error.status_code, f"{error.detail}: {request.method} {request.url.path}").response()
        response.headers.update(error.headers or {})  # Allow, of a 405
        return response

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return ApiError(500, "the server failed to answer; its log says why").response()
