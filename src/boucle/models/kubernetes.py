"""Whether a Deployment or a Service is one that Kubernetes takes, checked without a cluster.

The schemas are ours, for exactly the fields that we write (a field unknown here is refused, as
`kubectl apply --validate=strict` does), with the patterns of names and amounts that the official ones leave to the
server. The tests hold them against the official schemas: what those refuse is refused here.
"""

from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["manifest_problems"]

_NAME = {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
_QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?$"}
_LABEL = {"type": "string", "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$", "maxLength": 63}
_LABELS = {"type": "object", "additionalProperties": _LABEL, "minProperties": 1}
_PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
_POSITIVE = {"type": "integer", "minimum": 1}
_FLAG = {"type": "boolean"}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    told = {"type": "object", "additionalProperties": False}
    return {**told, "required": required, "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


_SCHEME = {"enum": ["HTTP", "HTTPS"]}
_PROBE = _object(
    ["httpGet"],
    httpGet=_object(
        ["port"],
        path={"type": "string", "pattern": "^/"},
        port={"anyOf": [_PORT, _NAME]},
        scheme=_SCHEME,
    ),
    periodSeconds=_POSITIVE,
    timeoutSeconds=_POSITIVE,
    failureThreshold=_POSITIVE,
)
_AMOUNTS = _object([], cpu=_QUANTITY, memory=_QUANTITY)
_CONTAINER = _object(
    ["name", "image", "resources", "readinessProbe", "livenessProbe", "securityContext"],
    name=_NAME,
    image={"type": "string", "pattern": r"^[a-z0-9][a-z0-9._/:@-]*(:[A-Za-z0-9._-]+)?$", "maxLength": 500},
    ports=_list(_object(["containerPort"], name={**_NAME, "maxLength": 15}, containerPort=_PORT)),
    startupProbe=_PROBE,
    livenessProbe=_PROBE,
    readinessProbe=_PROBE,
    resources=_object(["requests", "limits"], requests=_AMOUNTS, limits=_AMOUNTS),
    securityContext=_object(
        [],
        allowPrivilegeEscalation=_FLAG,
        readOnlyRootFilesystem=_FLAG,
        capabilities=_object([], drop=_list({"type": "string"})),
    ),
    volumeMounts=_list(
        _object(["name", "mountPath"], name=_NAME, mountPath={"type": "string"}, readOnly=_FLAG)
    ),
)
_POD = _object(
    ["containers"],
    automountServiceAccountToken=_FLAG,
    securityContext=_object(
        [],
        runAsNonRoot=_FLAG,
        runAsUser=_POSITIVE,
        seccompProfile=_object(["type"], type={"enum": ["RuntimeDefault", "Unconfined", "Localhost"]}),
    ),
    containers=_list(_CONTAINER),
    volumes=_list(
        {
            **_object(
                ["name"],
                name=_NAME,
                emptyDir={"type": "object"},
                secret=_object(["secretName"], secretName=_NAME),
            ),
            "minProperties": 2,
            "maxProperties": 2,
        }
    ),
)
_META = _object(
    ["name"],
    name=_NAME,
    labels=_LABELS,
    annotations={"type": "object", "additionalProperties": {"type": "string"}},
)
_SCHEMAS = {
    ("apps/v1", "Deployment"): _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "apps/v1"},
        kind={"const": "Deployment"},
        metadata=_META,
        spec=_object(
            ["selector", "template"],
            replicas={"type": "integer", "minimum": 0},
            selector=_object(["matchLabels"], matchLabels=_LABELS),
            template=_object(["metadata", "spec"], metadata=_object(["labels"], labels=_LABELS), spec=_POD),
        ),
    ),
    ("v1", "Service"): _object(
        ["apiVersion", "kind", "metadata", "spec"],
        apiVersion={"const": "v1"},
        kind={"const": "Service"},
        metadata=_META,
        spec=_object(
            ["ports"],
            selector=_LABELS,
            ports=_list(_object(["port"], name=_NAME, port=_PORT, targetPort={"anyOf": [_PORT, _NAME]})),
        ),
    ),
}


def manifest_problems(document: dict[str, Any]) -> list[str]:
    """What Kubernetes would refuse, or never start; empty when it is sound."""
    kind = (str(document.get("apiVersion")), str(document.get("kind")))
    if kind not in _SCHEMAS:
        return [f"{kind[0]} {kind[1]} is no kind that is known here"]
    found = [
        f"{document['kind']} {'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in Draft202012Validator(_SCHEMAS[kind]).iter_errors(document)
    ]
    if not found and kind[1] == "Deployment":
        spec = document["spec"]
        wanted, given = spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]
        if not wanted.items() <= given.items():
            found.append("Deployment spec.selector chooses no pod of its own template")
    return found
