"""`python3 -m isolcpus_dp` is the `isolcpus-dp` command."""

import sys

from isolcpus_dp.cli import main

sys.exit(main())
