"""What is measured."""
from .contender import Contender, Direct, Setup
from .culvert import Culvert
from .envoy import Envoy
from .haproxy import HAProxy
from .nginx import Nginx

ALL = {kind.name: kind for kind in (Direct, Culvert, Envoy, HAProxy, Nginx)}
YARDSTICK = Envoy.name
