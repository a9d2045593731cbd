"""Reads texts as Salt does and says whether the JSON Schema accepts them.

    PYTHON judge.py SCHEMA < texts > verdicts

One JSON string a line in; out, for each, a line: {"unreadable": why} if Salt's loader refuses the
text, {"errors": [...]} with what jsonschema has against it, none if it is valid. What JSON cannot
hold (bytes, infinity, a key that is no string) is an error as well.

Patterns are ECMA-262's, as JSON Schema has them: to Python's own `$` a line feed at the end is no
part of a text. check-jsonschema does the same.
"""

import collections
import json
import math
import sys

import jsonschema
import regress
from salt.utils.yamlloader import SaltYamlSafeLoader


def documents_of(text):
    loader = SaltYamlSafeLoader(text, dictclass=collections.OrderedDict)
    try:
        while loader.check_data():
            yield loader.get_data()
    finally:
        loader.dispose()


def unfit(value, at="$"):
    """What of a value JSON does not have."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{at}: the key {key!r} is no string"
            yield from unfit(item, f"{at}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unfit(item, f"{at}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{at}: {value} is no number"
    elif value is not None and not isinstance(value, (bool, int, float, str)):
        yield f"{at}: JSON has no {type(value).__name__}"


def listed(value):
    """A set is a list to runsmith, as docs/dialects.md tells."""
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    if isinstance(value, set):
        return sorted(value, key=str)
    return [listed(item) for item in value] if isinstance(value, list) else value


def part(document):
    """What is ours of a larger pillar; see `select` in the schema's `if`."""
    if isinstance(document, dict) and "unicorn" in document and not document.keys() & {"application", "unicorn_application"}:
        return document["unicorn"]
    return document


def pattern(validator, pattern, instance, schema):
    if isinstance(instance, str) and regress.Regex(pattern, "u").find(instance) is None:
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    judge = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": pattern})
    validator = judge(schema)
    for line in sys.stdin:
        try:
            documents = [listed(document) for document in documents_of(json.loads(line))]
        except Exception as error:
            print(json.dumps({"unreadable": f"{type(error).__name__}: {error}"}))
            continue
        errors = []
        for document in documents:
            strange = list(unfit(part(document)))
            errors += strange
            if not strange:
                errors += [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]
        print(json.dumps({"errors": [error[:300] for error in errors[:10]]}))


main()
