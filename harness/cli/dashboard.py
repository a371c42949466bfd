"""`harness dashboard`: show a study in Optuna's dashboard, read only, on this machine."""

from argparse import ArgumentParser, Namespace

from harness.cli.arguments import Subparsers, add_study_command, port, workspace_of


def add_parser(commands: Subparsers) -> ArgumentParser:
    """Add the parser of the command, with its options."""
    parser = add_study_command(commands, "dashboard", "show a study in Optuna's dashboard, on this machine only")
    parser.add_argument(
        "--port", type=port, default=8080, metavar="N", help="port to listen on; 0 for any free port (default: 8080)"
    )
    return parser


def run(args: Namespace) -> int:
    """Serve the dashboard until Ctrl-C."""
    from harness.analysis.study_reader import open_study_reader
    from harness.executors.interrupt import Interrupt
    from harness.report.dashboard import dashboard_app, dashboard_server, serve, study_url

    with open_study_reader(args.file, workspace_of(args), is_quick=args.quick) as study, Interrupt():
        study_id, name = study.optuna_id, study.file.study.study
        app = dashboard_app(study.store, {name: study.file.study})
        with dashboard_server(app, args.port) as server:
            print(f"{name} is shown at {study_url(server, study_id)}")
            print("Ctrl-C ends it.", flush=True)
            try:
                serve(server)
            except KeyboardInterrupt:
                print("ended")
    return 0
