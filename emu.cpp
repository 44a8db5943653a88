#include "cuda_emu.h"
namespace idx {
#include "index.inc"
}
namespace tab {
#include "tables.inc"
}
#undef KZ
#define KZ 3
#define KY 3
#define KX 3
namespace tab3 {
#include "tables.inc"
}
typedef unsigned u32; typedef unsigned long long u64;
extern "C" {
#define B(n,t) ((n)+(t)-1)/(t),t
void mark(const int*c,int n,u32*w,u32*s,int batch,int Z,int Y,int X,int W,int*o,int*u){launch(B(n,256),[=]{idx::mark((const int4*)c,nullptr,n,w,s,batch,Z,Y,X,W,o,u);});}
void scan(const u32*w,const u32*s,int spans,u64*st,int*rank,int*listed,int cap,int*tot,int*co,int ccap,int Z,int Y,int W){launch((spans+7)/8,256,[=]{idx::scan(w,s,spans,st,rank,listed,cap,tot,(int4*)co,ccap,Z,Y,W);});}
void emit(const u32*w,const int*rank,const int*l,const int*lc,int cap,int*co,int ccap,int Z,int Y,int W){launch(B(cap,256),[=]{idx::emit(w,rank,l,lc,cap,(int4*)co,ccap,Z,Y,W);});}
void clear_(u32*w,u32*s,int spans,u64*st,int states){launch(B(spans*32,256),[=]{idx::clear(w,s,spans,st,states);});}
void mark_windows(const u32*f,const int*l,const int*lc,int cap,int fz,int fy,int fw,u32*w,u32*s,int Z,int Y,int X,int W,const int*k){launch(B(cap,128),[=]{idx::mark_windows(f,l,lc,cap,fz,fy,fw,w,s,Z,Y,X,W,k[0],k[1],k[2],k[3],k[4],k[5],k[6],k[7],k[8],k[9],k[10],k[11]);});}
void fill(int known,const int*c,const int*n,int cap,const u32*w,const int*r,int Z,int Y,int X,int W,const int*k,int most,int*t,int pitch,u32*m,int mw){
 auto go=[&](auto f){launch(B(cap,128),[=]{f((const int4*)c,n,cap,w,r,Z,Y,X,W,k[0],k[1],k[2],k[3],k[4],k[5],k[6],k[7],k[8],k[9],k[10],k[11],most,t,pitch,m,mw);});};
 if(known) go(tab3::fill_table); else go(tab::fill_table);}
}
