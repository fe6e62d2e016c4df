// Package config reads the configuration of workerd: one strict YAML file,
// with every problem at once.
//
//	text ──parse──▶ nodes ──expand, decode──▶ File ──defaults──▶ File ──validate──▶ File ──check──▶ File
//	          │                    │                                        │               │
//	          ╰────────────────────┴──────────── Problems ◀─────────────────┴───────────────╯
//
// Guarantees:
//  1. Every key must exist, once, with a value of its type: there is no way to
//     misspell a setting and have it ignored. Only top-level keys that begin
//     with x- are free, for YAML anchors.
//  2. All problems are found in one run, each with file, line, column, path, and
//     a hint where one can be given (the first 1000 of them). Only a file that
//     is not YAML stops at one.
//  3. References (${VAR} and others, see [Env]) are expanded after parsing,
//     once, in values only: what they give is never taken for YAML.
//  4. Secrets are in no problem and not in what [Show] prints.
//  5. The work is bounded: 1 MiB of text, 50,000 values with aliases and merge
//     keys followed, 1 MiB from references.
//  6. [Show] prints what [Load] reads back to the same [File].
//
// Each part's fields, defaults and rules belong to the package that uses them;
// this one composes them, and compares them with each other. It opens no
// connection and reads no file but those that references name.
package config
