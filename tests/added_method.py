"""The pieces of a method, as the README's "Add a method" has them."""

import re

from workflow import REPOSITORY

EXAMPLE = (
    (REPOSITORY / "README.md").read_text().partition("## Add a method")[2].partition("\n## ")[0]
)
SETTINGS, CODE = re.findall(r"```python\n(.*?)```", EXAMPLE, re.DOTALL)
(ROW,) = re.findall(r"```yaml\n(.*?)```", EXAMPLE, re.DOTALL)
