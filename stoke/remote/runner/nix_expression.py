"""The Nix expression that finds system packages."""

from __future__ import annotations

NIX_EXPRESSION = """\
/* Reads what is requested from a JSON file, so that no user text is joined into this one. */
let
  requested = builtins.fromJSON (builtins.readFile ./requested.json);
  source = fetchTarball { inherit (requested) url sha256; };
  all = import source { config = { }; overlays = [ ]; };
  packages = map (path: { name = join path; } // find all [ ] path) requested.packages;
  join = builtins.concatStringsSep ".";
  find = set: above: path:
    if path == [ ] then found set
    else if builtins.isAttrs set && set ? ${builtins.head path}
    then find set.${builtins.head path} (above ++ [ (builtins.head path) ]) (builtins.tail path)
    else { above = join above; inherit set; };
  found = package:
    if package.type or null != "derivation" then { }
    else { drv = package.drvPath; outputs = map (output package) (useful package); };
  output = package: name: { inherit name; path = package.${name}.outPath; };
  /* The outputs that `nix-env --install` takes, without documentation. */
  useful = package:
    let
      usual = package.meta.outputsToInstall or [ package.outputName ];
      read = [ "man" "info" "doc" "devdoc" ];
      used = builtins.filter (name: !(builtins.elem name read)) usual;
    in if used == [ ] then usual else used;
  /* The names in each set that lacks a requested one, once per set: it may hold 25,000. */
  missed = builtins.filter (one: one ? above) packages;
  inside = one: { name = one.above; value = names one.set; };
  names = set:
    if builtins.isAttrs set && set.type or null != "derivation"
    then builtins.attrNames set else [ ];
in {
  source = toString source;
  packages = map (one: removeAttrs one [ "set" ]) packages;
  near = builtins.listToAttrs (map inside missed);
}
"""
