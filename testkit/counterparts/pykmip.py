"""PyKMIP for tests. `serve`: its server, unchanged. `admin`: its client, which makes and changes keys; one request and
one answer of JSON a line."""

import ctypes
import json
import os
import signal
import sys
import warnings

warnings.simplefilter("ignore")


def die_with_parent():
    # PyKMIP forks helpers of its own, which would outlive it.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def serve(arguments):
    from kmip.services.server import server

    os.register_at_fork(after_in_child=die_with_parent)
    sys.argv = ["pykmip-server"] + arguments
    server.main()


def admin(host, port, certificate, key, ca):
    from kmip.core import enums, utils
    from kmip.core.messages import messages
    from kmip.pie import client, objects

    masks = enums.CryptographicUsageMask
    algorithms = enums.CryptographicAlgorithm

    def run(proxy, request):
        command = request["command"]
        if command == "register":
            registered = objects.SymmetricKey(
                algorithms[request["algorithm"]],
                request["length"],
                bytes.fromhex(request["value"]),
                masks=[masks[name] for name in request["usage"]],
                name=request["name"],
            )
            return proxy.register(registered)
        if command == "create":
            return proxy.create(algorithms.AES, 256, name=request["name"])
        if command == "activate":
            return proxy.activate(request["id"])
        if command == "revoke":
            reason = enums.RevocationReasonCode[request["reason"]]
            return proxy.revoke(reason, uid=request["id"])
        if command == "destroy":
            return proxy.destroy(request["id"])
        if command == "reencode":
            message = messages.RequestMessage()
            version = enums.KMIPVersion["KMIP_" + request["version"].replace(".", "_")]
            message.read(utils.BytearrayStream(bytes.fromhex(request["hex"])), kmip_version=version)
            out = utils.BytearrayStream()
            message.write(out, kmip_version=version)
            return out.buffer.hex()
        raise ValueError(command)

    for line in sys.stdin:
        proxy = client.ProxyKmipClient(
            hostname=host,
            port=int(port),
            cert=certificate,
            key=key,
            ca=ca,
            ssl_version="PROTOCOL_TLSv1_2",
            config_file=os.devnull,
            kmip_version=enums.KMIPVersion.KMIP_1_4,
        )
        try:
            request = json.loads(line)
            if request["command"] == "reencode":
                answer = {"value": run(proxy, request)}
            else:
                with proxy:
                    answer = {"value": run(proxy, request)}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2:])
    else:
        admin(*sys.argv[2:])
