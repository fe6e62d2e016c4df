package admin

import (
	"bytes"
	"embed"
	"html/template"
	"net/http"
	"path"
)

//go:embed page
var pageFiles embed.FS

// page shows the status. With ?part=main it is only what changes, for the
// script that renews it.
func (s *Server) page(w http.ResponseWriter, r *http.Request) {
	name := "page"
	if r.URL.Query().Get("part") == "main" {
		name = "main"
	}
	status := s.backend.Status()
	status.Complete()
	var b bytes.Buffer
	err := s.template.ExecuteTemplate(&b, name, newView(status))
	if err != nil {
		s.log.Error("status page", "err", err)
		fail(w, r, http.StatusInternalServerError, "the page could not be made; the log says why")
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	write(w, http.StatusOK, b.Bytes())
}

// parsePage panics if the embedded page is no template.
func parsePage() *template.Template {
	return template.Must(template.ParseFS(pageFiles, "page/*.html"))
}

// staticFiles are what the page loads, by the path they are served at.
func staticFiles() map[string]http.Handler {
	types := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
	files := make(map[string]http.Handler)
	for _, name := range []string{"page.css", "page.js", "icon.svg"} {
		body, err := pageFiles.ReadFile("page/" + name)
		if err != nil {
			panic("admin: a file of the page is not embedded: " + err.Error())
		}
		files["/"+name] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", types[path.Ext(name)])
			w.Header().Set("Cache-Control", "no-cache") // a new binary brings new files
			write(w, http.StatusOK, body)
		})
	}
	return files
}
