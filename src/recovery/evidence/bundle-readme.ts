/** How to check a bundle without Resus. */
export function bundleReadme(system: string): string {
  return `# Evidence of "${system.replaceAll(/[\p{C}]/gu, ' ')}"

Signed records of rehearsed and real recoveries. They can be checked with \`sha256sum\`, \`openssl\` (3.0 or newer) and \`jq\` alone.

You need one thing that is **not from here**: the fingerprint of the signer. It is on the recovery sheet, and in the daily digest. What is
here was made by whoever gave it to you; a forger would have put another key in, and a README that says so.

## 1. Nothing was damaged on the way

    sha256sum -c --quiet SHA256SUMS

## 2. The keys are those of their names, and the one that you know signs

    FINGERPRINT=...    # from outside
    for key in keys/*.pem; do
      test "$(openssl pkey -pubin -in "$key" -outform der | sha256sum | cut -d ' ' -f 1)" = "$(basename "$key" .pem)" || echo "NOT THAT KEY: $key"
    done
    cat records/*.dsse.json | jq -r '.signatures[0].keyid' | grep -qx "$FINGERPRINT" || echo "NOT SIGNED BY THE KEY THAT YOU KNOW: any record"

## 3. Each record was signed by its key

    for record in records/*.dsse.json head.dsse.json; do
      base="\${record%.dsse.json}"
      key="$(jq -r '.signatures[0].keyid' "$record")"
      openssl pkeyutl -verify -pubin -inkey "keys/$key.pem" -rawin -in "$base.pae" -sigfile "$base.sig" || echo "NOT SIGNED: $record"
      { printf 'DSSEv1 28 application/vnd.in-toto+json %s ' "$(jq -r .payload "$record" | base64 -d | wc -c)"; jq -r .payload "$record" | base64 -d; } |
        cmp - "$base.pae" || echo "NOT WHAT WAS SIGNED: $record"
      jq -r '.signatures[0].sig' "$record" | base64 -d | cmp - "$base.sig" || echo "NOT ITS SIGNATURE: $record"
      test ! -e "$base.json" || jq -r .payload "$record" | base64 -d | cmp - "$base.json" || echo "NOT WHAT WAS SIGNED: $base.json"
    done

All records are signed by one key, until one of kind \`key\` names the next (\`predicate.fingerprint\`), which then signs those behind it, and the count:

    due=
    for record in records/*.dsse.json; do
      signer="$(jq -r '.signatures[0].keyid' "$record")"
      test "\${due:-$signer}" = "$signer" || echo "NOT THE KEY THAT WAS IN FORCE: $record"
      due="$(jq -r --arg signer "$signer" 'if .predicate.kind == "key" then .predicate.fingerprint else $signer end' "\${record%.dsse.json}.json")"
    done

## 4. None is missing, and none was moved

    previous=null
    for record in records/*.json; do
      case "$record" in *.dsse.json) continue;; esac
      test "$(jq -r .predicate.previous "$record")" = "$previous" || echo "NOT BEHIND THE ONE BEFORE IT: $record"
      previous="$(sha256sum < "$record" | cut -d ' ' -f 1)"
    done
    jq -r .payload head.dsse.json | base64 -d | jq .predicate

Numbers (\`predicate.sequence\`) go up by one. The last line shows how many records there were when this was made (\`count\`), and the digest and time of each (\`records\`, in order): of a part of
all records (\`from\`, \`until\`) those of that time have to be here, and the first one here is behind one whose digest is there. What was cut off at the end, by whoever had the key, shows only against a count that was noted elsewhere (the daily digest).

## With Resus

    resus evidence verify <this directory> --fingerprint <from outside>

## What a record says

\`records/NUMBER.html\` is for reading, \`records/NUMBER.json\` is what was signed: an in-toto statement (in-toto.io/Statement/v1) in a DSSE envelope. Nothing else counts: the HTML is for convenience.
It holds no patient's data. \`report.html\` sums up.
`
}
