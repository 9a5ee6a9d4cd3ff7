"""The packages that provide imported modules: a table of what is certain.

A module that is not listed most likely belongs to the package of the same name. That is a guess, and is
called one where it is proposed. `NAMESPACES` and `COMMON_NAMES` are never guessed.
"""

from __future__ import annotations

_OTHER_NAMES = """
absl=absl-py attr=attrs Bio=biopython bs4=beautifulsoup4 bson=pymongo cairo=pycairo
corsheaders=django-cors-headers Crypto=pycryptodome Cryptodome=pycryptodomex
cv2=opencv-python-headless dateutil=python-dateutil decouple=python-decouple discord=discord.py
dns=dnspython docx=python-docx dotenv=python-dotenv environ=django-environ faiss=faiss-cpu
fitz=pymupdf flask_cors=flask-cors git=gitpython github=pygithub gitlab=python-gitlab
gridfs=pymongo grpc=grpcio grpc_tools=grpcio-tools igraph=igraph imblearn=imbalanced-learn
IPython=ipython jenkins=python-jenkins jose=python-jose jwt=pyjwt kafka=kafka-python
ldap=python-ldap llama_cpp=llama-cpp-python magic=python-magic memcache=python-memcached
mpl_toolkits=matplotlib multipart=python-multipart MySQLdb=mysqlclient nacl=pynacl OpenGL=pyopengl
OpenSSL=pyopenssl osgeo=gdal PIL=pillow pptx=python-pptx psycopg2=psycopg2-binary pylab=matplotlib
pynvml=nvidia-ml-py pywt=pywavelets rest_framework=djangorestframework serial=pyserial
skimage=scikit-image sklearn=scikit-learn skopt=scikit-optimize slugify=python-slugify
snappy=python-snappy socketio=python-socketio socks=pysocks speech_recognition=speechrecognition
stdnum=python-stdnum telegram=python-telegram-bot umap=umap-learn usb=pyusb whisper=openai-whisper
wx=wxpython Xlib=python-xlib yaml=pyyaml zmq=pyzmq azure.core=azure-core
azure.identity=azure-identity azure.storage.blob=azure-storage-blob
backports.zoneinfo=backports.zoneinfo google.auth=google-auth
google.cloud.bigquery=google-cloud-bigquery google.cloud.pubsub=google-cloud-pubsub
google.cloud.storage=google-cloud-storage google.genai=google-genai
google.generativeai=google-generativeai google.oauth2=google-auth google.protobuf=protobuf
googleapiclient=google-api-python-client opentelemetry.sdk=opentelemetry-sdk
opentelemetry.trace=opentelemetry-api ruamel.yaml=ruamel.yaml zope.interface=zope.interface
distutils=setuptools pkg_resources=setuptools<81 cgi=legacy-cgi
"""
_SAME_NAME = """
aiofiles aiohttp alembic altair anthropic anyio arrow asyncpg boto3 botocore bokeh cachetools
catboost celery certifi cffi chardet click cloudpickle colorama cryptography cython dask datasets
distributed django docker duckdb einops fastapi filelock fire flask fsspec gensim geopandas gevent
gunicorn h5py httpx humanize hypothesis imageio jax jinja2 joblib jsonschema keras kubernetes
langchain lightgbm llvmlite loguru lxml lz4 mako markdown matplotlib mlflow more_itertools msgpack
mypy nltk networkx numba numpy onnx onnxruntime openai openpyxl optuna orjson packaging pandas
paramiko peewee pendulum pexpect plotly polars prometheus_client psutil psycopg pyarrow pydantic
pydantic_settings pygments pymongo pymysql pyparsing pyproj pyspark pytest pytz rasterio ray redis
regex requests rich scipy scrapy seaborn selenium sentence_transformers setuptools shap shapely
simplejson six sklearn_pandas spacy sqlalchemy sqlmodel starlette statsmodels streamlit sympy
tables tabulate tenacity tensorflow termcolor tiktoken tokenizers toml tomli torch torchaudio
torchvision tornado tqdm transformers trio typer typing_extensions ujson urllib3 uvicorn uvloop
wandb websockets werkzeug xarray xgboost xlrd xlsxwriter zstandard
"""
_SHARED = """
airflow aws_cdk azure backports collective google jaraco nvidia odoo opentelemetry paste plone
repoze ruamel sphinxcontrib zope
"""
_COMMON = """
app apps base cli client common conf config configs constants core data db helper helpers lib libs
local main model models module myapp mylib mymodule mypackage package project schema schemas
scripts server service services settings setup shared src test tests tools types util utils
version
"""
_STANDARD = """
aifc annotationlib asynchat asyncore audioop cgi cgitb chunk compression crypt distutils imghdr
imp lib2to3 mailcap msilib nis nntplib ossaudiodev pip pipes smtpd sndhdr spwd sunau telnetlib
tomllib uu xdrlib
"""

PACKAGES = {
    **dict(pair.split("=", 1) for pair in _OTHER_NAMES.split()),
    **{name: name.replace("_", "-") for name in _SAME_NAME.split()},
}
"""Module, perhaps dotted, to the package that has it."""

NAMESPACES = frozenset(_SHARED.split())
"""Modules that several packages share: only a longer name says which one has it."""

COMMON_NAMES = frozenset(_COMMON.split())
"""Names that people give to modules of their own."""

STANDARD_ELSEWHERE = frozenset(_STANDARD.split())
"""What sys.stdlib_module_names does not have: modules of other versions of Python, and pip."""
