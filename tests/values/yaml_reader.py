"""For each line of standard input, a JSON string with the path of a native run script, prints a JSON object:
its body as PyYAML's parser in Python and the one in C read it."""

import json
import sys

import yaml

for line in sys.stdin:
    with open(json.loads(line), encoding="utf-8", newline="") as script:
        text = script.read()
    loaders = {"python": yaml.SafeLoader, "c": yaml.CSafeLoader}
    print(json.dumps({name: yaml.load(text, loader) for name, loader in loaders.items()}), flush=True)
