/* libedgeemo: find the faces in an image and predict their emotions, with edgeemo's models and cards.
 *
 *   edgeemo *model;
 *   edgeemo_options options = {.detector = "detectors/blazeface-full.onnx"};
 *   if (edgeemo_open("small.onnx", &options, &model) != EDGEEMO_OK) { puts(edgeemo_error()); return 1; }
 *   edgeemo_frame frame = {pixels, width, height, stride, EDGEEMO_BGR};
 *   edgeemo_result *result;
 *   if (edgeemo_faces(model, &frame, &result) == EDGEEMO_OK) { ...; edgeemo_free(result); }
 *   edgeemo_close(model);
 *
 * Threads: any number may call edgeemo_faces and edgeemo_predict with one model at the same time. Opening sets the
 * environment variable ORT_DISABLE_TELEMETRY if it is not set, so nothing else may use the environment meanwhile; a
 * model is closed when no call with it runs any more. edgeemo_error is per thread.
 */
#ifndef EDGEEMO_H
#define EDGEEMO_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define EDGEEMO_API __attribute__((visibility("default")))
#else
#define EDGEEMO_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The numbers are the exit codes of the command edgeemo. */
typedef enum edgeemo_status {
  EDGEEMO_OK = 0,
  EDGEEMO_USAGE = 2,     /* an argument or option that is not as described here */
  EDGEEMO_DATA = 3,      /* an image that cannot be used */
  EDGEEMO_INTEGRITY = 4, /* a model, card or detector that is missing, foreign, changed or damaged */
  EDGEEMO_MACHINE = 5    /* ONNX Runtime, or memory, is missing */
} edgeemo_status;

typedef enum edgeemo_search {
  EDGEEMO_BY_SIZE = 0, /* few where it finds faces of 48 px, many in larger images */
  EDGEEMO_FEW = 1,     /* search the image as a whole */
  EDGEEMO_MANY = 2     /* search tiles of it, too, for small faces and crowds */
} edgeemo_search;

/* Zero is the default of each. */
typedef struct edgeemo_options {
  const char *detector;    /* blazeface-full.onnx, with its card blazeface-full.json beside it; NULL: ready crops only */
  const char *onnxruntime; /* ONNX Runtime's library, or a folder with it, such as the Python package's; NULL: that of
                              the environment variable EDGEEMO_ONNXRUNTIME, or else the system's */
  const char *label_set;   /* report in six, seven or ferplus8; NULL: in the model's labels */
  edgeemo_search search;
  double threshold; /* lowest score of a face, 0.001 to below 1; 0: the detector's own */
  int one_crop;     /* 0: average three crops of each face; 1: take one, in a third of the time for classifying */
  int threads;      /* of ONNX Runtime in each call; 0: one */
} edgeemo_options;

typedef enum edgeemo_format { EDGEEMO_GRAY = 0, EDGEEMO_RGB = 1, EDGEEMO_BGR = 2 } edgeemo_format;

/* An upright image of 8 bits per channel, at least 16 px a side. */
typedef struct edgeemo_frame {
  const uint8_t *pixels; /* the first row; 1 byte a pixel if gray, else 3 */
  int width, height;     /* in pixels */
  ptrdiff_t stride;      /* bytes from a row to the next; 0: rows follow each other without gaps */
  edgeemo_format format;
} edgeemo_frame;

enum { EDGEEMO_SMALL = 1, EDGEEMO_TILTED = 2, EDGEEMO_CLIPPED = 4 }; /* flags: why a prediction may be poor */
enum { EDGEEMO_LANDMARKS = 6 };

typedef struct edgeemo_face {
  double box[4]; /* x, y, width, height in pixels of the frame; may extend over its edges */
  double score;  /* of the detector, 0 to 1; NaN for a ready crop */
  double landmarks[EDGEEMO_LANDMARKS][2]; /* x, y: right and left eye (the person's), tip of the nose, mouth, ears */
  int landmark_count;                     /* EDGEEMO_LANDMARKS; 0 for a ready crop */
  int label;                              /* of the highest probability, as a position in `labels` */
  const double *probabilities;            /* one per label; they sum to 1 */
  int unsure;     /* 1: the highest probability is below the card's threshold; 0: it is not; -1: there is none */
  unsigned flags; /* EDGEEMO_SMALL | EDGEEMO_TILTED | EDGEEMO_CLIPPED */
} edgeemo_face;

typedef struct edgeemo_result {
  int face_count;
  const edgeemo_face *faces; /* the highest score first */
  int label_count;
  const char *const *labels;
  int left_out_count;
  const char *const *left_out; /* why further faces that were found are not classified */
} edgeemo_result;

typedef struct edgeemo edgeemo;

/* Open a model file, whose card lies beside it (small.onnx and small.onnx.json), and check that they fit. options: NULL
 * for the defaults. On success, *model must be closed; else it is NULL. */
EDGEEMO_API edgeemo_status edgeemo_open(const char *model_file, const edgeemo_options *options, edgeemo **model);

/* Find the faces of a frame, and predict the emotion of each. On success, *result must be freed; else it is NULL. */
EDGEEMO_API edgeemo_status edgeemo_faces(const edgeemo *model, const edgeemo_frame *frame, edgeemo_result **result);

/* Predict the emotion of a ready crop, which one face fills: of its central square. The result has one face. */
EDGEEMO_API edgeemo_status edgeemo_predict(const edgeemo *model, const edgeemo_frame *frame, edgeemo_result **result);

/* Free a result; it may be used after its model is closed. NULL is allowed. */
EDGEEMO_API void edgeemo_free(edgeemo_result *result);

/* Free a model. NULL is allowed. */
EDGEEMO_API void edgeemo_close(edgeemo *model);

/* Return what the last failed call of this thread expected and got, valid until the next one; "" if none failed. */
EDGEEMO_API const char *edgeemo_error(void);

#ifdef __cplusplus
}
#endif
#endif
