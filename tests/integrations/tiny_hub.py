"""A Hugging Face Hub in memory, at the network's edge: the transport of `huggingface_hub`'s own HTTP client.

All above it runs for real: `HfApi`, commits, large files by LFS, downloads into the cache, and whoever calls these.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import unquote

import httpx2
import yaml

HOST = "https://huggingface.co"
LARGE = (".safetensors", ".png")


@dataclass
class TinyHub:
    """Repositories as {name: {path: content}}; `token` may write those of "me", and open pull requests elsewhere."""

    token: str = "hf_tiny"
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    private: set[str] = field(default_factory=set)
    pulls: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refuses: str = ""

    def sha(self, repo: str) -> str:
        told = json.dumps({path: hashlib.sha1(data).hexdigest() for path, data in sorted(self.repos[repo].items())})
        return hashlib.sha1(told.encode()).hexdigest()

    def client(self) -> httpx2.Client:
        return httpx2.Client(transport=httpx2.MockTransport(self.answer), follow_redirects=True)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        path = unquote(request.url.path)
        self.asked.append(f"{request.method} {path}")
        if request.url.host == "lfs.tiny":
            self.blobs[path.strip("/")] = request.read()
            return httpx2.Response(200)
        assert f"{request.url.scheme}://{request.url.host}" == HOST
        writes = request.method == "POST" and path != "/api/validate-yaml"
        if writes and request.headers.get("authorization") != f"Bearer {self.token}":
            return httpx2.Response(401, json={"error": "Invalid username or password."})
        for pattern, method in ROUTES:
            found = re.fullmatch(pattern, path)
            if found:
                return method(self, request, *found.groups())
        raise AssertionError(f"nobody answers {request.method} {path}")

    def validate(self, request: httpx2.Request) -> httpx2.Response:
        """What the Hub does with a card's metadata, as far as can be told offline."""
        content = json.loads(request.read())["content"]
        data = yaml.safe_load(content.split("---\n")[1])
        wrong = [name for name in ("license", "pipeline_tag") if not isinstance(data.get(name, ""), str)]
        if wrong or self.refuses:
            return httpx2.Response(400, text=f"Invalid metadata in README.md: {wrong or self.refuses}")
        return httpx2.Response(200, json={"errors": [], "warnings": []})

    def whoami(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"type": "user", "name": "me"})

    def create(self, request: httpx2.Request) -> httpx2.Response:
        told = json.loads(request.read())
        name = f"{told['organization']}/{told['name']}"
        if name in self.repos:
            if told["organization"] != "me":
                return httpx2.Response(403, json={"error": "You don't have the rights to create a model there"})
            return httpx2.Response(
                409, json={"url": f"{HOST}/{name}", "error": "You already created this model repo"}
            )
        self.repos[name] = {".gitattributes": b"*.safetensors filter=lfs\n"}
        if told.get("visibility") == "private":
            self.private.add(name)
        return httpx2.Response(200, json={"url": f"{HOST}/{name}"})

    def preupload(self, request: httpx2.Request, repo: str) -> httpx2.Response:
        files = json.loads(request.read())["files"]
        modes = [{"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular"} for f in files]
        return httpx2.Response(200, json={"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})

    def batch(self, request: httpx2.Request, repo: str) -> httpx2.Response:
        wanted = json.loads(request.read())["objects"]
        actions = [{**o, "actions": {"upload": {"href": f"https://lfs.tiny/{o['oid']}"}}} for o in wanted]
        return httpx2.Response(200, json={"transfer": "basic", "objects": actions})

    def commit(self, request: httpx2.Request, repo: str) -> httpx2.Response:
        url = f"{HOST}/{repo}"
        if request.url.params.get("create_pr"):
            self.pulls[repo] = self.committed(request, self.repos[repo])
            told = {"commitUrl": f"{url}/commit/refs%2Fpr%2F1", "pullRequestUrl": f"{url}/discussions/1"}
            return httpx2.Response(200, json={**told, "commitOid": "0" * 40})
        if not repo.startswith("me/"):
            return httpx2.Response(403, json={"error": "Forbidden: pass create_pr=1 as a query parameter"})
        self.repos[repo] = self.committed(request, self.repos[repo])
        oid = self.sha(repo)
        told = {"commitUrl": f"{url}/commit/{oid}", "commitOid": oid, "pullRequestUrl": None}
        return httpx2.Response(200, json=told)

    def committed(self, request: httpx2.Request, before: dict[str, bytes]) -> dict[str, bytes]:
        files = dict(before)
        for line in request.read().splitlines():
            told = json.loads(line)
            value = told["value"]
            if told["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif told["key"] == "lfsFile":
                data = self.blobs[value["oid"]]
                assert hashlib.sha256(data).hexdigest() == value["oid"]
                files[value["path"]] = data
        return files

    def info(self, request: httpx2.Request, repo: str, revision: str | None = None) -> httpx2.Response:
        if repo not in self.repos:
            return missing("RepoNotFound")
        siblings = [{"rfilename": path, "size": len(data)} for path, data in sorted(self.repos[repo].items())]
        facts = {
            "id": repo,
            "modelId": repo,
            "sha": self.sha(repo),
            "siblings": siblings,
            "private": False,
            "tags": [],
        }
        return httpx2.Response(200, json=facts)

    def tree(self, request: httpx2.Request, repo: str, revision: str, under: str | None = None) -> httpx2.Response:
        files = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in sorted(self.repos[repo].items())
            if not under or path.startswith(f"{under}/")
        ]
        return httpx2.Response(200, json=files) if files else missing("EntryNotFound")

    def resolve(self, request: httpx2.Request, repo: str, revision: str, path: str) -> httpx2.Response:
        if repo not in self.repos:
            return missing("RepoNotFound")
        commit = {"X-Repo-Commit": self.sha(repo)}
        if path not in self.repos[repo]:
            return missing("EntryNotFound", commit)
        data = self.repos[repo][path]
        headers = {**commit, "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "Content-Length": str(len(data))}
        return httpx2.Response(200, headers=headers, content=b"" if request.method == "HEAD" else data)


def missing(code: str, headers: dict[str, str] | None = None) -> httpx2.Response:
    return httpx2.Response(404, headers={"X-Error-Code": code, **(headers or {})}, json={"error": code})


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"/api/validate-yaml", TinyHub.validate),
    (r"/api/whoami-v2", TinyHub.whoami),
    (r"/api/repos/create", TinyHub.create),
    (rf"/api/models/{REPO}/preupload/main", TinyHub.preupload),
    (rf"/{REPO}\.git/info/lfs/objects/batch", TinyHub.batch),
    (rf"/api/models/{REPO}/commit/main", TinyHub.commit),
    (rf"/api/models/{REPO}", TinyHub.info),
    (rf"/api/models/{REPO}/revision/([^/]+)", TinyHub.info),
    (rf"/api/models/{REPO}/tree/([^/]+)(?:/(.*))?", TinyHub.tree),
    (rf"/{REPO}/resolve/([^/]+)/(.+)", TinyHub.resolve),
]
