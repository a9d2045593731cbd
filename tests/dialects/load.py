"""Reads texts with Salt's or Ansible's own YAML loader and says what each of them is.

    PYTHON load.py salt|ansible < texts > values

One JSON string a line in; out, for each, a line `{"documents": [...]}` or `{"error": "..."}`. Values
carry their type, so that 1, 1.0, True and "1" are told apart: null, booleans, strings and lists are
themselves, {"int": "1"}, {"float": "1.0"}, {"bytes": hex}, {"time": iso}, {"vault": text},
{"set": [...]}, {"map": [[key, value], ...]}.
"""

import collections
import datetime
import json
import os
import sys


def typed(value, above=()):
    if id(value) in above:
        raise ValueError("a value that contains itself")
    if value is None or value is True or value is False:
        return value
    below = above + (id(value),)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return {"int": str(int(value))}
    if isinstance(value, float):
        return {"float": repr(float(value))}
    if isinstance(value, bytes):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (datetime.date, datetime.datetime)):
        return {"time": value.isoformat()}
    if isinstance(value, (set, frozenset)):
        return {"set": sorted((typed(item, below) for item in value), key=json.dumps)}
    if isinstance(value, (list, tuple)):
        return [typed(item, below) for item in value]
    if isinstance(value, dict):
        return {"map": [[typed(key, below), typed(item, below)] for key, item in value.items()]}
    if type(value).__name__ == "EncryptedString":
        return {"vault": str(value._ciphertext)}
    raise TypeError("unexpected type " + type(value).__name__)


def documents_of(loader):
    documents = []
    try:
        while loader.check_data():
            documents.append(loader.get_data())
    finally:
        loader.dispose()
    return documents


def salt():
    """What salt/renderers/yaml.py does with a pillar."""
    from salt.utils.yamlloader import SaltYamlSafeLoader

    return lambda text: documents_of(SaltYamlSafeLoader(text, dictclass=collections.OrderedDict))


def ansible():
    """What ansible/parsing/utils/yaml.py does with a file of variables."""
    os.environ.setdefault("ANSIBLE_LOCALHOST_WARNING", "false")
    import ansible.utils.display
    from ansible._internal._json._profiles import _legacy
    from ansible.parsing.yaml.loader import AnsibleLoader

    for name in ("warning", "deprecated"):
        setattr(ansible.utils.display.Display, name, lambda *args, **kwargs: None)

    def load(text):
        try:
            return [json.loads(text, cls=_legacy.Decoder)]
        except Exception:
            return documents_of(AnsibleLoader(text))

    return load


def main():
    load = {"salt": salt, "ansible": ansible}[sys.argv[1]]()
    for line in sys.stdin:
        try:
            answer = {"documents": [typed(document) for document in load(json.loads(line))]}
        except RecursionError:
            answer = {"error": "RecursionError"}
        except Exception as error:
            answer = {"error": type(error).__name__ + ": " + str(error)}
        print(json.dumps(answer))


main()
