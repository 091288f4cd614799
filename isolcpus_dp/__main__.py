"""`python3 -m isolcpus_dp` is the `isolcpus-dp` command."""

import signal
import sys

# As cli.main() does, which is only loaded after this: a SIGHUP must not end a daemon that starts.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})

from isolcpus_dp.cli import main  # noqa: E402

sys.exit(main())
