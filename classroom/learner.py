"""A learner of the load test: logs in, runs a lesson and moves its labs, as a browser would."""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import aiohttp
import nbformat
from jupyter_server.services.kernels.connection.base import (
    deserialize_msg_from_ws_v1,
    serialize_msg_to_ws_v1,
)
from yarl import URL

PROTOCOL = "v1.kernel.websocket.jupyter.org"  # what JupyterLab speaks
LONGEST_CELL = 120  # seconds
LONGEST_START = 120
FOLDED = "What comes out when you run it:"  # stored in front of an output that is folded
AHEAD = 2  # frames that a lab asks for besides the one it needs


@dataclass
class Notes:
    """What was seen of one learner, or of all of them.

    Attributes:
        errors: a sentence for each thing that went wrong.
        answers: seconds from a move of a lab to the kernel's answer.
        cells: seconds from running a cell to its end.
        starts: seconds until a server, and then a kernel, was there.
    """

    errors: list[str] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)
    cells: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)


class Learner:
    """Somebody with a name and a password in front of a browser.

    Args:
        address: of the hub.
        name: of the account.
        password: of the account.
        notes: where to write what is seen.
    """

    def __init__(self, address: str, name: str, password: str, notes: Notes):
        self.hub, self.name, self.password, self.notes = address, name, password, notes
        self.home = f"{address}/user/{name}"
        self.web = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def close(self) -> None:
        """Leave."""
        await self.web.close()

    async def log_in(self) -> None:
        """Fill in the form of the hub's login page."""
        page = await self._text("GET", f"{self.hub}/hub/login")
        token = re.search(r'name="_xsrf"\s+value="([^"]*)"', page)[1]
        form = {"_xsrf": token, "username": self.name, "password": self.password}
        async with self.web.post(f"{self.hub}/hub/login", data=form) as answer:
            if not answer.ok or "Invalid username or password" in await answer.text():
                raise RuntimeError(f"{self.name} was not let in: {answer.status}")

    async def make_token(self) -> str:
        """Make a token, with which others may ask one's server."""
        url = f"{self.hub}/hub/api/users/{self.name}/tokens"
        return json.loads(await self._text("POST", url, json={"expires_in": 3600}))["token"]

    async def start_server(self) -> None:
        """Open one's page, which starts the server, and wait until it is there."""
        began = time.monotonic()
        await self._text("GET", f"{self.hub}/hub/spawn")
        while True:
            async with self.web.get(f"{self.home}/lab") as answer:
                if answer.ok and str(answer.url).startswith(self.home):
                    break
                if answer.status >= 500 and "spawn-pending" in str(answer.url):
                    raise RuntimeError(f"no server for {self.name}: the log of the hub says why")
            if time.monotonic() - began > LONGEST_START:
                raise RuntimeError(f"no server for {self.name} in {LONGEST_START} s")
            await asyncio.sleep(0.5)
        self.notes.starts.append(time.monotonic() - began)

    async def end_server(self) -> None:
        """End one's server and all its kernels, and wait until it is gone."""
        url = f"{self.hub}/hub/api/users/{self.name}"
        if "_xsrf" not in self.web.cookie_jar.filter_cookies(URL(f"{self.hub}/hub/")):
            return  # nobody logged in
        await self._text("DELETE", f"{url}/server")
        began = time.monotonic()
        while json.loads(await self._text("GET", url))["servers"]:
            if time.monotonic() - began > LONGEST_START:
                raise RuntimeError(f"the server of {self.name} did not end")
            await asyncio.sleep(0.2)

    async def interrupt(self, lesson: Lesson) -> None:
        """Press the button that interrupts a kernel."""
        await self.request("POST", f"api/kernels/{lesson.kernel}/interrupt")

    async def read(self, path: str) -> dict[str, Any]:
        """Read a file or a folder through one's own server."""
        return await self.request("GET", f"api/contents/{path}")

    async def request(self, method: str, path: str, **options) -> Any:
        """Ask one's own server for something."""
        return json.loads(await self._text(method, f"{self.home}/{path}", **options) or "null")

    async def _text(self, method: str, url: str, **options) -> str:
        cookies = self.web.cookie_jar.filter_cookies(URL(f"{url}/"))
        headers = {"X-XSRFToken": cookies["_xsrf"].value} if "_xsrf" in cookies else {}
        async with self.web.request(method, url, headers=headers, **options) as answer:
            text = await answer.text()
            if not answer.ok:
                raise RuntimeError(f"{method} {url}: {answer.status} {text[:200]}")
            return text

    @asynccontextmanager
    async def open_lesson(self, path: str) -> AsyncIterator[Lesson]:
        """Open a lesson with a kernel of its own, and end that afterwards."""
        began = time.monotonic()
        content = await self.read(path)
        notebook = nbformat.from_dict(content["content"])
        wanted = {
            "path": path,
            "name": path,
            "type": "notebook",
            "kernel": {"name": "python3"},
        }
        session = await self.request("POST", "api/sessions", json=wanted)
        kernel = session["kernel"]["id"]
        url = f"{self.home}/api/kernels/{kernel}/channels?session_id={uuid.uuid4()}"
        try:
            async with self.web.ws_connect(
                url,
                protocols=[PROTOCOL],
                max_msg_size=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=5),
            ) as socket:
                lesson = Lesson(notebook, kernel, socket, self.notes)
                try:
                    await lesson.ask("kernel_info_request", {})
                    self.notes.starts.append(time.monotonic() - began)
                    yield lesson
                finally:
                    await lesson.close()
        finally:
            await self.request("DELETE", f"api/sessions/{session['id']}")


class Lab:
    """A lab or a question that a cell shows, as its page knows it.

    Args:
        comm: what the kernel calls it.
        opening: what the page got first; see `Lab.opening` in gap_utils/widgets/lab.py.
    """

    def __init__(self, comm: str, opening: dict[str, Any]):
        self.comm, self.name = comm, opening["name"]
        frame = opening["frames"][0]
        [control, *_] = [c for c in opening["controls"] if c["kind"] in ("slider", "choice")]
        control |= frame["limits"].get(control["name"], {})
        if control["kind"] == "choice":
            self._values = [value for _, value in control["options"]]
        else:
            self._values = [*range(control["low"], control["high"] + 1)]
        self._control, self._fields, self._moves = control["name"], frame["fields"], 0

    def step(self) -> dict[str, Any]:
        """Move the first control by one; what the page then sends to the kernel."""
        self._moves += 1
        fields, *ahead = [
            self._fields | {self._control: self._values[place % len(self._values)]}
            for place in range(self._moves, self._moves + 1 + AHEAD)
        ]
        return {"fields": fields, "missing": True, "ahead": ahead, "have": []}


class Lesson:
    """A lesson that is open, with its kernel.

    Args:
        notebook: its cells.
        kernel: its name among the kernels of the server.
        socket: the connection to its kernel.
        notes: where to write what is seen.
    """

    def __init__(self, notebook: Any, kernel: str, socket: Any, notes: Notes):
        self.kernel = kernel
        self.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        self.notes = notes
        self._socket = socket
        self._session = uuid.uuid4().hex
        self._awaited: dict[Any, asyncio.Future] = {}
        self._said: dict[str, list[dict]] = {}  # what came of a request, by its message
        self._labs: list[Lab] = []
        self._asked = 0
        self._reader = asyncio.create_task(self._read())

    async def close(self) -> None:
        """Stop listening."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)

    async def run(self, cell: Any) -> list[Lab]:
        """Run a cell as it stands; return the labs and questions that it shows."""
        began = time.monotonic()
        before = len(self._labs)
        answer, said = await self.execute(cell.source)
        self.notes.cells.append(time.monotonic() - began)
        tags = cell.metadata.get("tags", [])
        if answer["status"] != "ok" and "raises-exception" not in tags:
            self.notes.errors.append(f"{answer['ename']}: {answer['evalue']}")
        wanted, got = _texts(cell.outputs), _texts(said)
        if "nbval-ignore-output" not in tags and wanted != got:
            self.notes.errors.append(f"expected the output {wanted[-3:]}, got {got[-3:]}")
        return self._labs[before:]

    async def execute(self, code: str) -> tuple[dict, list[dict]]:
        """Run code; return the kernel's reply and all that came out."""
        content = {"code": code, "silent": False, "store_history": True}
        content |= {"allow_stdin": False, "stop_on_error": False, "user_expressions": {}}
        return await self.ask("execute_request", content)

    async def ask(self, kind: str, content: dict[str, Any]) -> tuple[dict, list[dict]]:
        """Send a request; return its reply and all that came of it."""
        message = uuid.uuid4().hex
        said = self._said[message] = []
        replied, idle = self._await((message, "reply")), self._await((message, "idle"))
        await self._send(message, kind, content)
        answer, _ = await asyncio.wait_for(asyncio.gather(replied, idle), LONGEST_CELL)
        del self._said[message]
        return answer, said

    async def move(self, lab: Lab) -> None:
        """Move a lab by a step, and wait until the kernel has answered."""
        self._asked += 1
        answered = self._await(self._asked)
        data = {"method": "custom", "content": lab.step() | {"ask": self._asked}}
        began = time.monotonic()
        await self._send(uuid.uuid4().hex, "comm_msg", {"comm_id": lab.comm, "data": data})
        problem = await asyncio.wait_for(answered, LONGEST_CELL)
        self.notes.answers.append(time.monotonic() - began)
        if problem:
            self.notes.errors.append(f"{lab.name}: {problem}")

    def _await(self, key: Any) -> asyncio.Future:
        self._awaited[key] = asyncio.get_running_loop().create_future()
        return self._awaited[key]

    def _came(self, key: Any, result: Any) -> None:
        waiting = self._awaited.pop(key, None)
        if waiting and not waiting.done():
            waiting.set_result(result)

    async def _send(self, message: str, kind: str, content: dict[str, Any]) -> None:
        now = datetime.now(timezone.utc).isoformat()
        header = {"msg_id": message, "msg_type": kind, "session": self._session}
        header |= {"username": "", "date": now, "version": "5.3"}
        parts = [json.dumps(part).encode() for part in (header, {}, {}, content)]
        await self._socket.send_bytes(serialize_msg_to_ws_v1(parts, "shell"))

    async def _read(self) -> None:
        try:
            await self._read_until_closed()
        except Exception as error:
            self._give_up(error)
        else:
            self._give_up(ConnectionError("the connection to the kernel was closed"))

    def _give_up(self, error: Exception) -> None:
        """Let nobody wait in vain."""
        for waiting in self._awaited.values():
            if not waiting.done():
                waiting.set_exception(error)
        self._awaited.clear()

    async def _read_until_closed(self) -> None:
        problems = {}
        async for frame in self._socket:
            _, parts = deserialize_msg_from_ws_v1(frame.data)
            header, parent, _, content = map(json.loads, parts[:4])
            kind, request = header["msg_type"], parent.get("msg_id")
            if kind.endswith("_reply"):
                self._came((request, "reply"), content)
            elif kind == "status" and content["execution_state"] == "idle":
                self._came((request, "idle"), None)
            elif kind == "comm_open" and "opening" in content["data"].get("state", {}):
                opening = content["data"]["state"]["opening"]
                if {"slider", "choice"} & {control["kind"] for control in opening["controls"]}:
                    self._labs.append(Lab(content["comm_id"], opening))
            elif kind == "comm_msg" and content["data"].get("method") == "custom":
                said = content["data"]["content"]
                if "problem" in said:
                    problems[said["ask"]] = said["problem"]
                if "done" in said:
                    self._came(said["ask"], problems.pop(said["ask"], ""))
            elif request in self._said:
                self._said[request].append({"output_type": kind, **content})


def _texts(outputs: list[dict]) -> list[str]:
    """What a cell printed and showed, in words; what came as one text may be stored as two."""
    found = [output.get("text") or output.get("data", {}).get("text/plain") for output in outputs]
    lines = "\n".join(filter(None, found)).splitlines()
    return sorted(line.strip() for line in lines if line.strip() and line != FOLDED)
