"""The commands of Slurm as far as datatrove and we use them: a submitted script really runs, on this machine."""

import sys
from pathlib import Path

import pytest

SBATCH = """
import os, re, subprocess, sys
from pathlib import Path
script = Path(sys.argv[-1]).read_text()
queue = Path(os.environ["FAKE_SLURM"])
job = 100 + len(list(queue.glob("*")))
print("Submitted batch job", job)
array = re.search("--array=0-([0-9]+)", script)
if "--dependency=" in script:  # the job that adds up statistics, which nobody waits for
    sys.exit()
copy = queue / f"{job}.sh"
copy.write_text(script)
output = re.search("--output=(.*)", script)[1].replace("%A", str(job))
states = []
for number in range(int(array[1]) + 1):
    variables = os.environ | {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_NODELIST": "here", "RUN_OFFSET": "0"}
    with open(output.replace("%a", str(number)), "w") as log:
        code = subprocess.run(["bash", copy], env=variables, stdout=log, stderr=log).returncode
    states.append(f"{job}_{number}|{'FAILED' if code else 'COMPLETED'}|{code}:0")
copy.with_suffix(".states").write_text("\\n".join(states) + "\\n")
"""
# Shows a job twice, and has forgotten it then.
SQUEUE = """
import os, sys
from pathlib import Path
seen = Path(os.environ["FAKE_SLURM"], f"{sys.argv[3]}.seen")
times = len(seen.read_text()) if seen.exists() else 0
seen.write_text("x" * (times + 1))
if times == 0:
    sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
if times == 1:
    print("RUNNING")
    sys.exit()
sys.exit("slurm_load_jobs error: Invalid job id specified")
"""
SACCT = """
import os, sys
from pathlib import Path
print(Path(os.environ["FAKE_SLURM"], sys.argv[sys.argv.index("--jobs") + 1] + ".states").read_text(), end="")
"""
SRUN = "import os, sys; os.execvp(sys.argv[4], sys.argv[4:])"
SCONTROL = "print('here')"
FAKES = {"sbatch": SBATCH, "squeue": SQUEUE, "sacct": SACCT, "srun": SRUN, "scontrol": SCONTROL}


def install_slurm(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the commands on PATH; what they remember lies in `folder`."""
    (folder / "bin").mkdir(parents=True)
    (folder / "queue").mkdir()
    for name, code in FAKES.items():
        (folder / "bin" / name).write_text(f"#!{sys.executable}\n{code}")
        (folder / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")
    monkeypatch.setenv("FAKE_SLURM", str(folder / "queue"))
