"""A real class on this machine: what one learner can see of another, and what is left of it.

Run as root with `make load-test`. Accounts, hub and servers are there for the tests alone.
"""

import asyncio
import csv
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from nbval_pictures import ROOT

pytest.importorskip("jupyterhub", reason="JupyterHub is not installed: docs/classroom.md")
if not shutil.which(
    "configurable-http-proxy", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
):
    pytest.skip("its proxy is not installed: docs/classroom.md", allow_module_level=True)
if os.geteuid() != 0:
    pytest.skip("only root can make accounts: run it with sudo", allow_module_level=True)

from classroom.learner import Learner, Notes
from classroom.temporary import GROUP, learners_of, processes_of, temporary_class

LESSON = "notebooks/00_start_here.ipynb"
SECRET = "forty-two"


def test_a_load_test_of_two_ends_without_an_error(tmp_path):
    table = load_test("--learners", "2", "--seconds", "25", "--csv", str(tmp_path / "table.csv"))
    _, complaints = table.communicate(timeout=180)
    assert table.returncode == 0, complaints
    machine, *lines = (tmp_path / "table.csv").read_text().splitlines()
    assert "cores" in machine
    [seen] = csv.DictReader(lines)
    assert float(seen["errors"]) == 0
    assert float(seen["cells run"]) >= 4
    assert float(seen["lab moves"]) >= 1
    assert 0 < float(seen["browser step p50 ms"]) < 5000
    assert 50 < float(seen["MB a learner"]) < 1000
    assert_nothing_is_left()


def test_nothing_is_left_of_a_load_test_that_is_interrupted():
    table = load_test("--learners", "2", "--seconds", "120", "--no-browser")
    began = time.monotonic()
    while not any("ipykernel" in name or "kernel" in name for name in names_of_processes()):
        assert table.poll() is None and time.monotonic() - began < 60
        time.sleep(0.5)
    table.send_signal(signal.SIGINT)
    _, complaints = table.communicate(timeout=90)
    assert table.returncode != 0
    assert complaints.splitlines()[-1] == "The load test ends: it was interrupted"
    assert_nothing_is_left()


def load_test(*options: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "classroom/load_test.py"), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def names_of_processes() -> list[str]:
    """The command lines of the learners' processes."""
    accounts = {pwd.getpwnam(name).pw_uid for name in learners_of(GROUP)}
    paths = [Path(f"/proc/{process}/cmdline") for process in processes_of(accounts)]
    return [path.read_text() for path in paths if path.exists()]


def assert_nothing_is_left():
    assert learners_of(GROUP) == []
    assert subprocess.run(["getent", "group", GROUP], capture_output=True).returncode == 2
    assert not [*Path(tempfile.gettempdir()).glob("gap-load-test-*")]


@pytest.fixture(scope="module")
def room():
    with temporary_class(2, GAP_CLASS_KERNELS="2") as room:
        yield room


@asynccontextmanager
async def logged_in(room, *places: int):
    """Learners in front of their servers, which end afterwards."""
    names = [[*room.passwords][place] for place in places]
    learners = [Learner(room.address, name, room.passwords[name], Notes()) for name in names]
    try:
        for learner in learners:
            await learner.log_in()
            await learner.start_server()
        yield learners
    finally:
        for learner in learners:
            await learner.end_server()
            await learner.close()


async def run(lesson, code: str) -> str:
    """What code prints in a learner's kernel, or the error that it ends with."""
    reply, said = await lesson.execute(code)
    if reply["status"] == "error":
        return f"{reply['ename']}: {reply['evalue']}"
    return "".join(output.get("text", "") for output in said).strip()


def account(learner) -> pwd.struct_passwd:
    return pwd.getpwnam(learner.name)


def test_a_learner_cannot_read_anothers_files(room):
    asyncio.run(look_around(room))


async def look_around(room):
    async with logged_in(room, 0, 1) as (nosy, other):
        text = {"type": "file", "format": "text", "content": SECRET}
        await other.request("PUT", "api/contents/secret.txt", json=text)
        assert (await other.read("secret.txt"))["content"] == SECRET
        home = account(other).pw_dir

        # through the other's server, by the hub's address
        for method in ("GET", "DELETE", "PUT"):
            url = f"{other.home}/api/contents/secret.txt"
            async with nosy.web.request(method, url, json=text) as answer:
                assert answer.status in (403, 404)
                assert SECRET not in await answer.text()
        for page in ("lab", "files/secret.txt", "api/kernels", "api/sessions"):
            async with nosy.web.get(f"{other.home}/{page}") as answer:
                assert not answer.ok or not str(answer.url).startswith(other.home)
                assert SECRET not in await answer.text()

        async with nosy.open_lesson(LESSON) as lesson, other.open_lesson(LESSON) as theirs:
            await run(theirs, f"secret = {SECRET!r}")
            assert await run(lesson, "import os; print(os.getuid())") == str(account(nosy).pw_uid)

            # through one's own server, by a path and by a link
            await run(lesson, f"os.symlink({home!r}, os.path.expanduser('~/link'))")
            for path in (f"..{home}/secret.txt", f"../{other.name}/secret.txt", "link/secret.txt"):
                with pytest.raises(RuntimeError, match=r": (400|403|404|500)"):
                    await nosy.read(path)

            # through the system: files, folders, processes, and what kernels talk through
            assert "PermissionError" in await run(lesson, f"open('{home}/secret.txt')")
            assert "PermissionError" in await run(lesson, f"os.listdir({home!r})")
            assert "PermissionError" in await run(lesson, f"os.listdir('{home}/.jupyter-run')")
            processes = processes_of({account(other).pw_uid})
            assert len(processes) == 4  # server and kernel, and what stands for each
            for process in processes:
                assert "Error" in await run(lesson, f"open('/proc/{process}/environ').read()")
                assert "Error" in await run(lesson, f"open('/proc/{process}/mem', 'rb')")
                assert "PermissionError" in await run(lesson, f"os.kill({process}, 9)")

            # the server itself, past the hub
            [runs] = Path(home, ".jupyter-run").glob("jpserver-*.json")
            port = json.loads(runs.read_text())["port"]
            url = f"http://127.0.0.1:{port}/user/{other.name}/api/contents/secret.txt"
            async with nosy.web.get(url, allow_redirects=False) as answer:
                assert answer.status in (302, 403)
                assert SECRET not in await answer.text()

            # a kernel talks through files, and not through ports that all accounts can listen to
            [talks] = Path(home, ".jupyter-run").glob("kernel-*.json")
            assert json.loads(talks.read_text())["transport"] == "ipc"

            # and nobody reads the hub's own files
            state = room.log.parent
            assert "PermissionError" in await run(lesson, f"open('{state}/hub.sqlite', 'rb')")
            assert "PermissionError" in await run(lesson, f"open('{state}/cookie_secret')")
            assert "PermissionError" in await run(lesson, f"os.listdir('{state}')")
            assert "PermissionError" in await run(lesson, "os.setuid(0)")


@pytest.mark.parametrize("who", ["wrong", "empty", "another's", "root", "daemon"])
def test_nobody_gets_in_without_a_password_of_ones_own(room, who):
    first, second = room.passwords
    name = who if who in ("root", "daemon") else first
    password = {"another's": room.passwords[second], "wrong": "wrong"}.get(who, "")

    async def knock():
        learner = Learner(room.address, name, password, Notes())
        try:
            await learner.log_in()
        finally:
            await learner.close()

    with pytest.raises(RuntimeError, match=f"{name} was not let in"):
        asyncio.run(knock())


def test_limits_of_a_learner(room):
    asyncio.run(reach_limits(room))


async def reach_limits(room):
    async with logged_in(room, 0) as (learner,):
        async with learner.open_lesson(LESSON) as lesson:
            assert await run(lesson, "hoard = bytearray(4 << 30)") == "MemoryError: "
            assert await run(lesson, "print(6 * 7)") == "42"  # the kernel is alive
            assert await run(lesson, "import torch; print(torch.get_num_threads())") == "1"

            # interrupting reaches the kernel through the one that stands for it
            sleeping = asyncio.create_task(run(lesson, "import time; time.sleep(60)"))
            await asyncio.sleep(1)
            await learner.interrupt(lesson)
            assert (await asyncio.wait_for(sleeping, 10)).startswith("KeyboardInterrupt")

            # two are allowed
            async with learner.open_lesson("notebooks/01_pool_a_4x4_map.ipynb"):
                with pytest.raises(RuntimeError, match="expected at most 2 lessons at work"):
                    async with learner.open_lesson("notebooks/02_compare_flatten_and_gap.ipynb"):
                        pytest.fail("there are three kernels")
        assert len(await_processes(learner, 2)) == 2  # all kernels have ended

        # a kernel that counts for ever ends with the one that stands for it
        async with learner.open_lesson(LESSON) as lesson:
            endless = asyncio.create_task(run(lesson, "while True: pass"))
            await asyncio.sleep(1)
            kernel = (await learner.request("GET", "api/kernels"))[0]["id"]
            await learner.request("POST", f"api/kernels/{kernel}/restart")
            endless.cancel()
            assert await run(lesson, "print(6 * 7)") == "42"
            assert len(await_processes(learner, 4)) == 4
    assert await_processes(learner, 0) == []


def await_processes(learner, count: int) -> list[int]:
    """The learner's processes, when there are no more than so many."""
    began = time.monotonic()
    while len(found := processes_of({account(learner).pw_uid})) > count:
        if time.monotonic() - began > 15:
            break
        time.sleep(0.2)
    return found


def test_kernels_end_with_a_server_that_is_killed(room):
    asyncio.run(kill_server(room))


async def kill_server(room):
    async with logged_in(room, 0) as (learner,):
        with pytest.raises(RuntimeError, match="DELETE"):  # nothing is there to end the kernel
            async with learner.open_lesson(LESSON):
                processes = processes_of({account(learner).pw_uid})
                names = {p: Path(f"/proc/{p}/cmdline").read_text() for p in processes}
                [server] = [p for p, name in names.items() if "\0server\0" in name]
                os.kill(server, signal.SIGKILL)
                assert await_processes(learner, 0) == []
