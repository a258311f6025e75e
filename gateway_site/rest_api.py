"""Read-only REST for staff under ``/api/v1/``: what is configured, and how it is doing."""

from typing import ClassVar

from django.conf import settings
from django.contrib.auth.models import Group
from rest_framework import serializers, viewsets
from rest_framework.routers import DefaultRouter

from upstreams.models import Upstream
from virtualmcp.models import UpstreamChoice, VirtualMcp


class UpstreamSerializer(serializers.ModelSerializer[Upstream]):
    """An upstream without anything secret; its key is its identity."""

    class Meta:
        model = Upstream
        fields: ClassVar = [
            "key",
            "title",
            "description",
            "url",
            "enabled",
            "era",
            "credential_kind",
            "detected_era",
            "detected_revision",
            "last_checked_at",
        ]


class ChoiceSerializer(serializers.ModelSerializer[UpstreamChoice]):
    """One upstream of a Virtual MCP."""

    upstream = serializers.SlugRelatedField[Upstream](slug_field="key", read_only=True)

    class Meta:
        model = UpstreamChoice
        fields: ClassVar = ["upstream", "position", "required", "tool_mode", "chosen_tools"]


class VirtualMcpSerializer(serializers.ModelSerializer[VirtualMcp]):
    """A Virtual MCP with the address that people paste into their client."""

    address = serializers.SerializerMethodField()
    upstreams = ChoiceSerializer(source="choices", many=True, read_only=True)
    groups = serializers.SlugRelatedField[Group](slug_field="name", many=True, read_only=True)

    class Meta:
        model = VirtualMcp
        fields: ClassVar = [
            "slug",
            "title",
            "description",
            "address",
            "enabled",
            "audience",
            "groups",
            "upstreams",
        ]

    def get_address(self, virtual_mcp: VirtualMcp) -> str:
        """Return the MCP endpoint's URL."""
        return f"{settings.PUBLIC_URL}/v1/mcp/{virtual_mcp.slug}"


class UpstreamViewSet(viewsets.ReadOnlyModelViewSet[Upstream]):
    """``/api/v1/upstreams/``."""

    queryset = Upstream.objects.order_by("key")
    serializer_class = UpstreamSerializer
    lookup_field = "key"


class VirtualMcpViewSet(viewsets.ReadOnlyModelViewSet[VirtualMcp]):
    """``/api/v1/virtual-mcps/``."""

    queryset = VirtualMcp.objects.order_by("slug").prefetch_related("choices__upstream", "groups")
    serializer_class = VirtualMcpSerializer
    lookup_field = "slug"


router = DefaultRouter()
router.register("upstreams", UpstreamViewSet, basename="api-upstream")
router.register("virtual-mcps", VirtualMcpViewSet, basename="api-virtual-mcp")
urlpatterns = router.urls
