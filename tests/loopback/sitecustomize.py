"""Python imports this at the start of a child of the tests: it stays on this machine and ends with them."""

import end_with_tests
import loopback_guard

loopback_guard.install()
end_with_tests.install()
