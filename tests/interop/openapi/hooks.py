"""Hooks of schemathesis: give a part of its requests what it cannot invent.

Half of the requests become ones that succeed, and a quarter get credentials. Some get what no
description can ask for, such as a header that is too large. The rest is sent as generated.

Every answer becomes a line of calls.jsonl: which operation and media type it is about, its status and
its request id.
"""

import base64
import itertools
import json
import os
from collections import defaultdict

import hypothesis
import schemathesis
from hypothesis import Phase

SECRET = os.environ["SECRET"]
TOKEN = os.environ["TOKEN"]
REVOCABLE = os.environ["REVOCABLE"]

turns = defaultdict(itertools.count)
calls = open("calls.jsonl", "a", encoding="utf-8", buffering=1)

# Without Phase.target, which takes as long as all other phases and looks for requests that succeed:
# these come from below.
hypothesis.settings.register_profile("untargeted", phases=[Phase.explicit, Phase.generate, Phase.shrink])
hypothesis.settings.load_profile("untargeted")


@schemathesis.hook
def before_call(context, case, kwargs):
    route = case.operation.definition.raw["x-route"]
    turn = next(turns[case.operation.label]) % 12
    if turn == 11:
        provoke(next(turns[case.operation.label, "provoke"]) % 5, case, kwargs)
    elif turn < 9:
        authenticate(route, case, is_right=turn < 6)


@schemathesis.hook
def after_call(context, case, response):
    call = {
        "operation": case.operation.label,
        "type": case.media_type,
        "status": response.status_code,
        "request_id": response.headers["x-request-id"][0],
    }
    calls.write(json.dumps(call) + "\n")


def authenticate(route, case, is_right):
    # The client whose registered Content-Type is the one of this request.
    client = "octets" if case.media_type == "application/octet-stream" else "json"
    if is_right:
        case.headers.pop("DPoP", None)
        for name in list(case.headers):
            if name.lower().startswith("x-client-") or name.lower() == "content-type":
                del case.headers[name]
    if route in ("token", "introspect", "revocation") or route.startswith("vision"):
        if isinstance(case.body, dict) or is_right:
            own = {"client_id": client, "client_secret": SECRET}
            own |= {
                "token": {"grant_type": "client_credentials"},
                "introspect": {"token": TOKEN},
                "revocation": {"token": REVOCABLE},
                "vision_validate_token": {"token": TOKEN},
            }.get(route, {"grant_type": "client_credentials", "scope": "firstvision.a"})
            case.body = own if is_right else case.body | own
            case.headers.pop("Authorization", None)
        if is_right and route == "vision_v2_token":
            case.query = {"appContext": "firstvision"}
        elif is_right:
            case.query = {}
    elif route == "firstvision_token":
        pair = base64.b64encode(f"{client}:{SECRET}".encode()).decode()
        case.headers["Authorization"] = f"Basic {pair}"
        if is_right:
            case.query = {}
            case.body = {}
            if case.path_parameters:
                case.path_parameters["scope"] = "firstvision.a"
    elif route == "validate":
        case.headers["Authorization"] = f"Bearer {TOKEN}"
        if is_right:
            case.query = {}


def provoke(kind, case, kwargs):
    if kind == 0:
        case.headers["Content-Encoding"] = "gzip"
        kwargs["data"] = b"x"
    elif kind == 1:
        case.headers["X-Large"] = "x" * 40_000
    elif kind == 2:
        case.headers["Host"] = "two hosts"
    elif kind == 3:
        case.method = "PUT"
    else:
        kwargs["data"] = b"x" * 20_000
