"""Emulator of the paid ``wan2.2-s2v-detect`` service: real HTTP on loopback, with an invoice.

It is not the vendor's service, and its invoice charges no account: it is for comparison with a ledger.
The emulator does not detect people: the file name decides.

    options.py        its options
    process.py        Emulator: the service in a child process that never outlives its parent
    server.py         binds the socket and runs the service
    service.py        the documented call; invoice, counters, faults at run time
    detector.py       fetches an image and checks it: format and size for real, the person by the file name
    windows.py        ways in which the vendor may count the rate
    faults.py         errors and broken connections on demand
    catalogue.py      the vendor's documented errors, as data
    wire.py           responses that break off
    invoice.py        billed calls, and counters
    samples.py        the sample images, and a list of candidates that holds every kind of problem
    sample_routes.py  serves them
    sample_images.py  draws them
    fixture.py        pytest fixtures ``s2v_emulator`` and ``s2v_emulator_factory``
"""

from collections.abc import Callable

from s2v_tasks.emulator.faults import Fault
from s2v_tasks.emulator.invoice import CallsReport, InvoiceLine
from s2v_tasks.emulator.options import EmulatorOptions
from s2v_tasks.emulator.process import Emulator

__all__ = ["CallsReport", "Emulator", "EmulatorOptions", "Fault", "InvoiceLine", "serve"]


def serve(options: EmulatorOptions, *, ready: Callable[[str], None]) -> None:
    """Run the service in the foreground until a signal ends it; ``ready`` is called with the base URL.

    Raises:
        UsageError: The address can't be bound, or the invoice file can't be used.
    """
    # Imported here, so that the package costs nothing before it serves.
    from s2v_tasks.emulator.server import run

    run(options, ready)
