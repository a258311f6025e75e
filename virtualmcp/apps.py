"""Application configuration."""

from django.apps import AppConfig


class VirtualMcpConfig(AppConfig):
    name = "virtualmcp"
    verbose_name = "Virtual MCP servers"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Tell the authorization server what tokens can be for, and listen for changes."""
        from oauthserver import audience
        from upstreams import change_streams, session_stream, unrelated_questions
        from upstreams import signals as upstream_signals
        from virtualmcp import change_hearing, notice_feed, published_resources, signals
        from virtualmcp.routing import shared_questions
        from virtualmcp.transport import session_questions

        audience.register_resource_lookup(
            published_resources.find,
            published_resources.may_use,
            published_resources.all_for,
            published_resources.everything,
        )
        for room in (upstream_signals, signals):
            room.changed.connect(change_hearing.hear_signal, dispatch_uid="virtualmcp.changes")
        change_streams.when_lists_change(notice_feed.lists_changed)
        change_streams.when_heard_for_all(notice_feed.pass_on)
        session_stream.when_heard_for_others(notice_feed.pass_on)
        unrelated_questions.share_by(shared_questions)
        unrelated_questions.ask_by(session_questions.ask, session_questions.tell)
