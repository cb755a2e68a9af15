"""Asks GoogleSQL's analyzer about statements; runs in the analyzer's own environment.

    python analyze.py PORT < statements.jsonl > verdicts.jsonl

One JSON object a line in: {"query": text, "queryParameters": BigQuery's REST form}. For each, a
list a line out: {"statement": text, "error": null or text} of each statement of the script. Or
{"expression": text}, answered by the text that it evaluates to, or null. It
answers line by line, so that it can be asked as long as statements come. Tables and views that
the statements create make up the catalog, as in the warehouse. Scripting keywords and
INFORMATION_SCHEMA, which the analyzer knows nothing of, are reported as "skipped".
"""

import json
import re
import sys

import grpc
import zetasql.wasi._pb2 as generated

sys.path.insert(0, next(iter(generated.__path__)))
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as service
from zetasql.wasi._pb2.zetasql.proto import options_pb2, simple_catalog_pb2
from zetasql.wasi._pb2.zetasql.public import options_pb2 as public_options
from zetasql.wasi._pb2.zetasql.public import simple_table_pb2, type_pb2
from zetasql.wasi._pb2.zetasql.resolved_ast import resolved_node_kind_pb2

# BigQuery's JSON has no equality, grouping or DISTINCT.
NOT_IN_BIGQUERY = {"FEATURE_JSON_TYPE_COMPARISON"}
SCRIPTING = re.compile(r"(?i)(declare|set|if|end if|execute|begin|commit|rollback|call)\b")
POSITIONAL = 1
REST_TYPES = {"INTEGER": "INT64", "BOOLEAN": "BOOL", "FLOAT": "DOUBLE", "FLOAT64": "DOUBLE"}


class Analyzer:
    def __init__(self, port):
        self.channel = grpc.insecure_channel(
            f"localhost:{port}", options=[("grpc.max_receive_message_length", 64 << 20)]
        )
        self.language = self._language()
        self.tables = {}

    def call(self, method, request, response):
        return self.channel.unary_unary(
            f"/zetasql.local_service.ZetaSqlLocalService/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )(request, timeout=30, wait_for_ready=True)

    def _language(self):
        language = self.call(
            "GetLanguageOptions",
            service.LanguageOptionsRequest(maximum_features=True),
            options_pb2.LanguageOptionsProto,
        )
        names = {
            value.number: value.name for value in public_options.LanguageFeature.DESCRIPTOR.values
        }
        kept = [f for f in language.enabled_language_features if names[f] not in NOT_IN_BIGQUERY]
        del language.enabled_language_features[:]
        language.enabled_language_features.extend(kept)
        language.product_mode = public_options.PRODUCT_EXTERNAL
        language.reserved_keywords.append("QUALIFY")
        del language.supported_statement_kinds[:]
        language.supported_statement_kinds.extend(
            value.number
            for value in resolved_node_kind_pb2.ResolvedNodeKind.DESCRIPTOR.values
            if value.name.endswith("_STMT")
        )
        return language

    def catalog(self):
        """Every table under project.dataset.table and dataset.table."""
        root = simple_catalog_pb2.SimpleCatalogProto(name="root")
        root.builtin_function_options.language_options.CopyFrom(self.language)
        folders, number = {}, 0
        for path, columns in self.tables.items():
            parts = path.split(".")
            for route in (parts, parts[1:]):
                node = root
                for depth in range(len(route) - 1):
                    key = tuple(route[: depth + 1])
                    if key not in folders:
                        folders[key] = node.catalog.add(name=route[depth])
                    node = folders[key]
                number += 1
                table = node.table.add(name=route[-1], serialization_id=number, full_name=path)
                for name, kind in columns:
                    kind = (
                        kind
                        if isinstance(kind, type_pb2.TypeProto)
                        else type_pb2.TypeProto(type_kind=kind)
                    )
                    table.column.append(simple_table_pb2.SimpleColumnProto(name=name, type=kind))
        return root

    def options(self, parameters):
        options = options_pb2.AnalyzerOptionsProto(
            language_options=self.language,
            error_message_mode=public_options.ERROR_MESSAGE_ONE_LINE,
            default_timezone="UTC",
        )
        for parameter in parameters:
            kind = parameter["parameterType"]["type"]
            proto = type_pb2.TypeProto(
                type_kind=getattr(type_pb2, f"TYPE_{REST_TYPES.get(kind, kind)}")
            )
            if parameter.get("name"):
                options.query_parameters.add(name=parameter["name"], type=proto)
            else:
                options.parameter_mode = POSITIONAL
                options.positional_query_parameters.append(proto)
        return options

    def analyze(self, statement, parameters):
        """None, or what GoogleSQL says against the statement."""
        request = service.AnalyzeRequest(
            options=self.options(parameters),
            simple_catalog=self.catalog(),
            sql_statement=statement,
        )
        try:
            answer = self.call("Analyze", request, service.AnalyzeResponse)
        except grpc.RpcError as error:
            return error.details()
        self.remember(answer.resolved_statement, statement)
        return None

    def evaluate(self, expression):
        """The text that GoogleSQL's own evaluator makes of an expression; None for NULL."""
        request = service.EvaluateRequest(sql=expression)
        request.options.language_options.CopyFrom(self.language)
        value = self.call("Evaluate", request, service.EvaluateResponse).value
        return value.string_value if value.HasField("string_value") else None

    def remember(self, resolved, statement):
        """Add what a CREATE or ALTER makes to the catalog."""
        node = getattr(resolved, resolved.WhichOneof("node"))
        path, columns = "", []
        for level in _levels(node):
            fields = level.DESCRIPTOR.fields_by_name
            if "name_path" in fields and level.name_path:
                path = ".".join(level.name_path)
            if "column_definition_list" in fields and level.column_definition_list:
                columns = [(column.name, column.type) for column in level.column_definition_list]
            elif "output_column_list" in fields and level.output_column_list and not columns:
                columns = [(column.name, column.column.type) for column in level.output_column_list]
        creates = re.match(r"(?is)\s*create\b", _bare(statement))
        replaces = re.search(r"(?i)or\s+replace", statement)
        if creates and columns and path.count(".") == 2 and (replaces or path not in self.tables):
            self.tables[path] = columns
        altered = re.match(
            r"(?is)\s*alter table (\S+) add column(?: if not exists)? (\w+) (\w+)", _bare(statement)
        )
        if altered:
            name = altered[1].replace("`", "")
            kind = getattr(type_pb2, f"TYPE_{altered[3].upper()}")
            if altered[2] not in {column for column, _ in self.tables[name]}:
                self.tables[name].append((altered[2], kind))


def _levels(node):
    """A resolved node, its oneof children and its parents: fields lie on any of them."""
    while "node" in node.DESCRIPTOR.oneofs_by_name and node.WhichOneof("node"):
        node = getattr(node, node.WhichOneof("node"))
    while True:
        yield node
        if "parent" not in node.DESCRIPTOR.fields_by_name:
            return
        node = node.parent
        while "node" in node.DESCRIPTOR.oneofs_by_name and node.WhichOneof("node"):
            node = getattr(node, node.WhichOneof("node"))


def _bare(statement):
    return re.sub(r"/\*.*?\*/|--[^\n]*", "", statement, flags=re.DOTALL).strip()


def split(script):
    """Statements of a script: cut at semicolons outside of strings and comments."""
    token = r"--[^\n]*|/\*.*?\*/|r?'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"|`[^`]*`|[^;]"
    return [part.strip() for part in re.findall(f"(?:{token})+", script, re.DOTALL)]


def main():
    analyzer = Analyzer(sys.argv[1])
    for line in sys.stdin:
        job = json.loads(line)
        if "expression" in job:
            print(json.dumps(analyzer.evaluate(job["expression"])), flush=True)
            continue
        verdicts = []
        for statement in split(job["query"]):
            bare = _bare(statement)
            if not bare:
                continue
            verdict = {"statement": statement, "error": None}
            if SCRIPTING.match(bare) or "INFORMATION_SCHEMA" in bare:
                verdict["skipped"] = True
            else:
                verdict["error"] = analyzer.analyze(statement, job.get("queryParameters") or [])
            verdicts.append(verdict)
        print(json.dumps(verdicts), flush=True)


if __name__ == "__main__":
    main()
