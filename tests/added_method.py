"""The code blocks in the section "Add a method" of the README."""

import re

from workflow import REPOSITORY

EXAMPLE = (
    (REPOSITORY / "README.md").read_text().partition("## Add a method")[2].partition("\n## ")[0]
)
SETTINGS, CODE = re.findall(r"```python\n(.*?)```", EXAMPLE, re.DOTALL)
(ROW,) = re.findall(r"```yaml\n(.*?)```", EXAMPLE, re.DOTALL)
