#!/usr/bin/python3
"""testssl.sh (https://testssl.sh) against a TLS listener: fails for each finding above LOW.

usage: tests/wire/scan_tls.py HOST:PORT [--quick]

--quick leaves out what tries each cipher and each client in turn (ten seconds instead of minutes). What a
self-made certificate, a missing DNS entry and the service behind the gateway cause is not counted; everything counted is the listener's own doing.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

WORSE = {"MEDIUM", "HIGH", "CRITICAL", "FATAL"}
# About the certificate's issuer, and about the headers of the service behind the gateway: nothing of the listener's.
OF_OTHERS = ("cert_chain_of_trust", "cert_trust", "cert_revocation", "cert_crlDistributionPoints", "cert_ocspURL",
             "cert_caIssuers", "DNS_CAArecord", "cert_expirationStatus", "cert_validityPeriod", "cert_extlifeSpan",
             "overall_grade", "grade_cap_reason", "security_headers")
QUICK = ["--protocols", "--heartbleed", "--ccs", "--ticketbleed", "--renegotiation", "--crime"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    program = shutil.which("testssl") or shutil.which("testssl.sh")
    if not program:
        sys.exit("testssl is not installed")
    with tempfile.TemporaryDirectory() as directory:
        file = pathlib.Path(directory) / "findings.json"
        done = subprocess.run([program, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--sneaky",
                               "--jsonfile", str(file), *(QUICK if options.quick else []), options.address],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1200)
        if not file.exists():
            sys.exit(f"testssl said nothing:\n{done.stdout}\n{done.stderr}")
        findings = json.loads(file.read_text())
    bad = [f for f in findings if f["severity"] in WORSE and not f["id"].startswith(OF_OTHERS)]
    seen = {f["id"] for f in findings}
    for finding in findings if not options.quick else bad:
        print(f"{finding['severity']:8} {finding['id']}: {finding['finding']}")
    wanted = {"SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "heartbleed", "CCS", "ticketbleed", "secure_client_renego", "CRIME_TLS"}
    if not options.quick:
        wanted |= {"ROBOT", "SWEET32", "LOGJAM", "BEAST", "LUCKY13", "RC4", "cipherlist_STRONG"}
    if not wanted <= seen:
        sys.exit(f"not looked at: {sorted(wanted - seen)}\n{done.stdout}")
    print(f"{len(findings)} findings, {len(bad)} above LOW")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
