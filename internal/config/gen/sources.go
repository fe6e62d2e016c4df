package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const module = "github.com/workerd/workerd/"

// sources parses packages of this module when they are asked for.
type sources struct {
	root     string
	packages map[string]*pkg // by directory within the module
}

// pkg is what the reference needs of a package.
type pkg struct {
	dir   string
	types map[string]typeDecl
	files []*ast.File
}

type typeDecl struct {
	spec *ast.TypeSpec
	doc  string
	file *ast.File
}

func (s *sources) load(dir string) (*pkg, error) {
	if p, ok := s.packages[dir]; ok {
		return p, nil
	}
	names, err := filepath.Glob(filepath.Join(s.root, filepath.FromSlash(dir), "*.go"))
	if err != nil {
		return nil, err
	}
	p := &pkg{dir: dir, types: map[string]typeDecl{}}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		p.add(file)
	}
	s.packages[dir] = p
	return p, nil
}

func (p *pkg) add(file *ast.File) {
	p.files = append(p.files, file)
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			continue
		}
		for _, s := range decl.Specs {
			spec := s.(*ast.TypeSpec)
			doc := spec.Doc.Text()
			if doc == "" {
				doc = decl.Doc.Text()
			}
			p.types[spec.Name.Name] = typeDecl{spec, doc, file}
		}
	}
}

// named is a type of one of our packages.
type named struct {
	pkg  *pkg
	name string
}

func (n named) decl() typeDecl { return n.pkg.types[n.name] }

// structType is nil for a type that is not a struct.
func (n named) structType() *ast.StructType {
	d := n.decl()
	if d.spec == nil {
		return nil
	}
	t, _ := d.spec.Type.(*ast.StructType)
	return t
}

// kind is a field's type as the manual calls it, and the struct within it.
type kind struct {
	text   string
	suffix string // of the path of what is within: ".<name>", "[]"
	within named
}

// kind of a type expression in a file of a package. size: the field is tagged
// as one.
func (s *sources) kind(p *pkg, file *ast.File, e ast.Expr, size bool) (kind, error) {
	switch t := e.(type) {
	case *ast.StarExpr:
		return s.kind(p, file, t.X, size)
	case *ast.ArrayType:
		k, err := s.kind(p, file, t.Elt, size)
		return kind{"list of " + k.plural(), "[]" + k.suffix, k.within}, err
	case *ast.MapType:
		k, err := s.kind(p, file, t.Value, size)
		return kind{"mapping of names to " + k.plural(), ".<name>" + k.suffix, k.within}, err
	case *ast.SelectorExpr:
		return s.foreign(file, t)
	case *ast.Ident:
		return s.local(p, file, t.Name, size)
	}
	return kind{}, fmt.Errorf("%s: a field of type %T cannot be configuration", p.dir, e)
}

func (k kind) plural() string {
	switch {
	case strings.HasPrefix(k.text, "list"):
		return "lists" + strings.TrimPrefix(k.text, "list")
	case k.text == "text":
		return "texts"
	case k.text == "mapping" || strings.HasSuffix(k.text, "number"):
		return k.text + "s"
	}
	return k.text
}

func (s *sources) local(p *pkg, file *ast.File, name string, size bool) (kind, error) {
	switch name {
	case "string":
		return kind{text: "text"}, nil
	case "bool":
		return kind{text: "true or false"}, nil
	case "float64":
		return kind{text: "number"}, nil
	case "int64":
		if size {
			return kind{text: "size"}, nil
		}
		return kind{text: "whole number"}, nil
	case "int":
		return kind{text: "whole number"}, nil
	}
	n := named{p, name}
	d := n.decl()
	if d.spec == nil {
		return kind{}, fmt.Errorf("%s: no type %s", p.dir, name)
	}
	if n.structType() != nil {
		return kind{text: "mapping", within: n}, nil
	}
	return s.kind(p, file, d.spec.Type, size)
}

func (s *sources) foreign(file *ast.File, t *ast.SelectorExpr) (kind, error) {
	id, ok := t.X.(*ast.Ident)
	if !ok {
		return kind{}, fmt.Errorf("a type of an unknown package: %s", t.Sel.Name)
	}
	switch id.Name + "." + t.Sel.Name {
	case "time.Duration":
		return kind{text: "duration"}, nil
	case "secret.Secret":
		return kind{text: "secret text"}, nil
	}
	dir, err := importDir(file, id.Name)
	if err != nil {
		return kind{}, err
	}
	p, err := s.load(dir)
	if err != nil {
		return kind{}, err
	}
	d, ok := p.types[t.Sel.Name]
	if !ok {
		return kind{}, fmt.Errorf("%s: no type %s", dir, t.Sel.Name)
	}
	return s.local(p, d.file, t.Sel.Name, false)
}

// importDir finds the directory of a package that a file calls by name.
func importDir(file *ast.File, name string) (string, error) {
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return "", err
		}
		if dir, ours := strings.CutPrefix(path, module); ours && (dir[strings.LastIndexByte(dir, '/')+1:] == name || spec.Name != nil && spec.Name.Name == name) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("package %s is not one of ours", name)
}
