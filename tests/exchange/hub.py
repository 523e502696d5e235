"""The cache of the hub by huggingface_hub: `read` what is there without a network, or `write` a model from ENDPOINT.

python hub.py read CACHE ID | python hub.py write CACHE ID ENDPOINT
"""

import hashlib
import json
import os
import sys

action, cache, repository = sys.argv[1:4]
os.environ["HF_HUB_OFFLINE"] = "1" if action == "read" else "0"
os.environ["HF_HUB_DISABLE_XET"] = "1"
if action == "write":
    os.environ["HF_ENDPOINT"] = sys.argv[4]

from huggingface_hub import hf_hub_download, scan_cache_dir

names = ["config.json", "model.safetensors"]
paths = [hf_hub_download(repository, name, cache_dir=cache) for name in names]
found = scan_cache_dir(cache)
print(json.dumps({
    "sha256": [hashlib.sha256(open(path, "rb").read()).hexdigest() for path in paths],
    "repositories": [repo.repo_id for repo in found.repos],
    "refs": [sorted(repo.refs) for repo in found.repos],
    "warnings": [str(warning) for warning in found.warnings],
}))
