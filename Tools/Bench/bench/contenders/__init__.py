"""What is measured."""
from .contender import Contender, Direct, Setup
from .culvert import Culvert
from .envoy import Envoy, EnvoyFull
from .haproxy import HAProxy
from .nginx import Nginx

ALL = {kind.name: kind for kind in (Direct, Culvert, Envoy, EnvoyFull, HAProxy, Nginx)}
YARDSTICK = Envoy.name
