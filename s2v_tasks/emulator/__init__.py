"""The emulator of the paid ``wan2.2-s2v-detect`` service: real HTTP on loopback, with an invoice.

It is not the vendor's service and nobody is charged; the invoice is there to compare a ledger with.
The emulator does not look for people; it goes by the file name.

    options.py        what it is started with
    process.py        Emulator: the service in a child process that never outlives its parent
    server.py         binds the socket and runs the service
    service.py        the documented call; invoice, counters, faults at run time
    judge.py          fetches a picture and judges it: format and size for real, the person by a stated rule
    windows.py        the ways the rate might be counted
    faults.py         errors and broken connections on demand
    catalogue.py      the vendor's documented errors, as data
    wire.py           answers that break on the wire
    invoice.py        every billed call, and counters
    samples.py        the sample pictures, and a list of candidates that holds every kind of trouble
    sample_routes.py  serves them
    pictures.py       draws them
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
        UsageError: the address can't be bound, or the invoice file can't be used.
    """
    # Imported here, so that the package costs nothing before it serves.
    from s2v_tasks.emulator.server import run

    run(options, ready)
