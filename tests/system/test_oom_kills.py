"""Where the system's counter of kills for lack of memory is found."""

import pytest

from ablation.system.oom_kills import num_oom_kills

V2, V1 = "low 0\nhigh 0\nmax 12\noom 3\noom_kill {}\noom_group_kill 0\n", "oom_kill_disable 0\nunder_oom 0\noom_kill {}\n"


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("0::/user.slice/job\n", {"cgroup/user.slice/job/memory.events": V2.format(4)}, 4),
        ("0::/\n", {"cgroup/memory.events": V2.format(2), "proc/vmstat": "oom_kill 9\n"}, 2),
        ("0::/outside/the/container\n", {"cgroup/memory.events": V2.format(0)}, 0),
        ("9:name=systemd:/\n4:memory:/slurm/job_7\n0::/\n", {"cgroup/memory/slurm/job_7/memory.oom_control": V1.format(1)}, 1),
        ("4:cpu,memory:/docker/abc\n", {"cgroup/memory/memory.oom_control": V1.format(6)}, 6),
        (
            "4:memory:/job\n",
            {"cgroup/memory/job/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n", "proc/vmstat": "a 1\noom_kill 8\n"},
            8,
        ),
        ("0::/\n", {"proc/vmstat": "nr_free_pages 1\noom_kill 5\n"}, 5),
        ("0::/\n", {"proc/vmstat": "nr_free_pages 1\n"}, None),
        ("0::/a\n", {"cgroup/a/memory.events": "oom_kill many\n"}, None),
        ("", {}, None),
        (None, {"proc/vmstat": "oom_kill 3\n"}, 3),
        (None, {}, None),
    ],
)
def test_the_nearest_counter_is_read(tmp_path, group, files, expected):
    """That of the control group in both versions, as its processes or a container see it, else the machine's, else none is known."""
    written = files | ({"proc/self/cgroup": group} if group is not None else {})
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert num_oom_kills(tmp_path / "proc", tmp_path / "cgroup") == expected
