// Dumps what BuildKit's own parser reads in each Dockerfile: NAME.Dockerfile -> NAME.json beside it (or stdout with -).
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
)

type Heredoc struct {
	Name    string `json:"name"`
	Content string `json:"content"`
	Chomp   bool   `json:"chomp"`
	Expand  bool   `json:"expand"`
}
type Instruction struct {
	Keyword  string    `json:"keyword"`
	Flags    []string  `json:"flags"`
	Words    []string  `json:"words"`
	Exec     bool      `json:"exec_form"`
	Heredocs []Heredoc `json:"heredocs"`
	Lines    [2]int    `json:"lines"`
}
type Stage struct {
	Name     string `json:"name"`
	Base     string `json:"base"`
	Platform string `json:"platform"`
	Expanded string `json:"base_expanded"`
	Commands int    `json:"instructions"`
}
type Answer struct {
	Error        string        `json:"error,omitempty"`
	ErrorLines   [2]int        `json:"error_lines"`
	Escape       string        `json:"escape"`
	GlobalArgs   int           `json:"global_args"`
	Instructions []Instruction `json:"instructions"`
	Stages       []Stage       `json:"stages"`
}

func words(node *parser.Node, flat bool) (out []string) {
	out = []string{}
	for n := node.Next; n != nil; n = n.Next {
		if len(n.Children) > 0 {
			child := n.Children[0]
			out = append(out, strings.ToUpper(child.Value))
			out = append(out, words(child, true)...)
			continue
		}
		out = append(out, n.Value)
	}
	key := strings.ToUpper(node.Value)
	if key == "ENV" || key == "LABEL" {
		kept := []string{}
		for i, w := range out {
			if i%3 != 2 {
				kept = append(kept, w)
			}
		}
		out = kept
	}
	return out
}

func fail(a *Answer, err error) {
	a.Error = err.Error()
	var le *parser.LocationError
	if errors.As(err, &le) && len(le.Locations) > 0 {
		r := le.Locations[len(le.Locations)-1]
		if len(r) > 0 {
			a.ErrorLines = [2]int{r[0].Start.Line, r[len(r)-1].End.Line}
		}
	}
}

func answer(data []byte) (a Answer) {
	res, err := parser.Parse(bytes.NewReader(data))
	if err != nil {
		fail(&a, err)
		return
	}
	stages, args, err := instructions.Parse(res.AST, nil)
	if err != nil {
		fail(&a, err)
		return
	}
	if len(stages) == 0 {
		a.Error = "dockerfile contains no stages to build"
		return
	}
	a.Escape = string(res.EscapeToken)
	a.GlobalArgs = len(args)
	for _, n := range res.AST.Children {
		i := Instruction{Keyword: strings.ToUpper(n.Value), Flags: n.Flags, Words: words(n, false), Exec: n.Attributes["json"],
			Heredocs: []Heredoc{}, Lines: [2]int{n.StartLine, n.EndLine}}
		if i.Flags == nil {
			i.Flags = []string{}
		}
		for _, h := range n.Heredocs {
			i.Heredocs = append(i.Heredocs, Heredoc{h.Name, h.Content, h.Chomp, h.Expand})
		}
		a.Instructions = append(a.Instructions, i)
	}
	// dockerfile2llb/convert.go, buildMetaArgs and buildDispatchStates, for a build on linux/amd64
	lex := shell.NewLex(res.EscapeToken)
	env := []string{}
	for _, side := range []string{"TARGET", "BUILD"} {
		env = append(env, side+"PLATFORM=linux/amd64", side+"OS=linux", side+"ARCH=amd64", side+"VARIANT=")
	}
	for _, c := range args {
		for _, kv := range c.Args {
			if kv.Value == nil {
				continue
			}
			w, _, err := lex.ProcessWord(*kv.Value, shell.EnvsFromSlice(env))
			if err != nil {
				a.Error, a.ErrorLines = err.Error(), [2]int{c.Location()[0].Start.Line, c.Location()[0].End.Line}
				return
			}
			env = append(env, kv.Key+"="+w)
		}
	}
	for _, s := range stages {
		base, _, err := lex.ProcessWord(s.BaseName, shell.EnvsFromSlice(env))
		if err == nil && base == "" {
			err = errors.New("base name (" + s.BaseName + ") should not be blank")
		}
		platform, _, err2 := lex.ProcessWord(s.Platform, shell.EnvsFromSlice(env))
		if err == nil {
			err = err2
		}
		if err != nil {
			a = Answer{Error: err.Error(), ErrorLines: [2]int{s.Location[0].Start.Line, s.Location[len(s.Location)-1].End.Line}}
			return
		}
		a.Stages = append(a.Stages, Stage{s.Name, s.BaseName, platform, base, len(s.Commands)})
	}
	return
}

func main() {
	if os.Args[1] == "-" { // a JSON list of texts on stdin, a JSON list of answers on stdout
		var texts []string
		if err := json.NewDecoder(os.Stdin).Decode(&texts); err != nil {
			panic(err)
		}
		out := []Answer{}
		for _, t := range texts {
			out = append(out, answer([]byte(t)))
		}
		json.NewEncoder(os.Stdout).Encode(out)
		return
	}
	for _, name := range os.Args[1:] {
		data, err := os.ReadFile(name)
		if err != nil {
			panic(err)
		}
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", " ")
		e.Encode(answer(data))
		os.WriteFile(strings.TrimSuffix(name, ".Dockerfile")+".json", b.Bytes(), 0o644)
	}
}
