"""Quotas by the days and months of a time zone."""
import datetime
import re
import zoneinfo

import pytest

from limit_wire import route
from test_34_rate_limits import limited   # noqa: F401

FAST = {"rate": "1000/s", "quotas": ["5/d", "7/month"]}


def ends(zone, now):
    """Seconds until its next day, and its next month."""
    local = now.astimezone(zone)
    day = datetime.datetime.combine(local.date() + datetime.timedelta(days=1), datetime.time(), zone)
    month = datetime.datetime(local.year + local.month // 12, local.month % 12 + 1, 1, tzinfo=zone)
    return [(end.astimezone(datetime.timezone.utc) - now).total_seconds() for end in (day, month)]


@pytest.mark.parametrize("name", ["Europe/Berlin", "Australia/Sydney", "Pacific/Kiritimati", "America/St_Johns", "Asia/Kathmandu"])
def test_windows_end_at_midnight_there(limited, name):   # noqa: F811
    made = limited({"few": {"key": "client_ip", "default": FAST, "time_zone": name}}, [route("a", "few")])
    before = ends(zoneinfo.ZoneInfo(name), datetime.datetime.now(datetime.timezone.utc))
    got = made.ask("/a").get("RateLimit")
    after = ends(zoneinfo.ZoneInfo(name), datetime.datetime.now(datetime.timezone.utc))
    told = re.fullmatch(r'"few";r=\d+;t=\d+, "few:d";r=4;t=(\d+), "few:month";r=6;t=(\d+)', got)
    for i in range(2):
        assert after[i] - 2 <= int(told[i + 1]) <= before[i] + 2 or after[i] > before[i]   # it was midnight just now
    shown = made.bucket("few", "127.0.0.1").body
    assert b'"quota":"5/d","remaining":4' in shown


def test_a_reload_reads_the_zone(limited):   # noqa: F811
    made = limited({"few": {"key": "client_ip", "default": FAST}}, [route("a", "few")])

    def day_ends():
        return int(re.search(r'"few:d";r=\d+;t=(\d+)', made.ask("/a").get("RateLimit"))[1])
    utc = day_ends()
    made.reload(rate_limits={"few": {"key": "client_ip", "default": FAST, "time_zone": "Asia/Kathmandu"}})   # 5 h 45 min east
    gap = (utc - day_ends()) % 86400
    assert abs(gap - (5 * 3600 + 45 * 60)) <= 10
