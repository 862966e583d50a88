"""Prints the manifests on standard input as a JSON list, after holding them against the schemas.

Each line on standard error is a fault. Unknown fields are faults, as for `kubectl apply`, which asks
the server for strict validation.
"""

import json
import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml

# The oldest version with every field that the manifests use, and the newest known one.
VERSIONS = ("1.27", kubernetes_validate.latest_version())


def closed(schema):
    """Returns the schema, in which no object may have other properties than those that it names."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: closed(part) for name, part in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def faults(manifest):
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    if manifest["kind"] == "ServiceMonitor":
        file = pathlib.Path(__file__).with_name("servicemonitor.json")
        schema = closed(json.loads(file.read_text()))
        # The API server checks the metadata of every kind.
        schema["properties"]["metadata"] = {"type": "object"}
        validator = jsonschema.Draft202012Validator(schema)
        for error in validator.iter_errors(manifest):
            yield f"{name}: {error.json_path}: {error.message}"
        return
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"{name}: {version}: {error.json_path}: {error.message}"


def main():
    manifests = list(yaml.safe_load_all(sys.stdin))
    for manifest in manifests:
        for fault in faults(manifest):
            print(fault, file=sys.stderr)
    json.dump(manifests, sys.stdout)


main()
