"""Until the room's own actions are there."""

from virtualmcp.models import UpstreamChoice, VirtualMcp
from virtualmcp.signals import changed


def create_virtual_mcp(data, actor):
    row = VirtualMcp(**data)
    row.full_clean()
    row.save()
    changed.send(VirtualMcp, kind="configuration", key=row.slug)
    return row


def update_virtual_mcp(row, data, actor):
    for k, v in data.items():
        setattr(row, k, v)
    row.full_clean()
    row.save()
    changed.send(VirtualMcp, kind="configuration", key=row.slug)
    return row


def delete_virtual_mcp(row, actor):
    row.delete()
    changed.send(VirtualMcp, kind="configuration", key="")


def set_groups(row, groups, actor):
    row.groups.set(groups)
    changed.send(VirtualMcp, kind="configuration", key=row.slug)


def set_choices(row, wanted, actor):
    row.choices.all().delete()
    for n, (up, req, tools) in enumerate(wanted):
        UpstreamChoice.objects.create(
            virtual_mcp=row,
            upstream=up,
            position=n,
            required=req,
            tool_mode="all" if tools is None else "chosen",
            chosen_tools=tools or [],
        )
    changed.send(VirtualMcp, kind="configuration", key=row.slug)
